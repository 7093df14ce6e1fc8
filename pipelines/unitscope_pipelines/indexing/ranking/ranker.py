"""The ranked tables that questions read: peaks of a segment's images, sorted unit by unit, with statistics."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.indexing.ranking.statistics import Labels, UnitSummary, unit_statistics
from unitscope_pipelines.storage.parts import write_atomically
from unitscope_pipelines.storage.ranked_file import write_ranked, write_with_footers
from unitscope_pipelines.storage.segments.images import SegmentImages
from unitscope_pipelines.vision.recording.memory import keep_freed_memory
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part, UnitFooter
from unitscope_schemas.manifest import BLOCK_UNITS
from unitscope_schemas.ranks import activations_of_keys, images_of_keys, rank_keys

NONFINITE_NAMED = 100
"""Count of the images with a NaN or infinite peak that are named."""


@dataclass(frozen=True)
class UnitBlock:
    """A block of up to BLOCK_UNITS consecutive units of a layer, from unit number × BLOCK_UNITS."""

    layer: str
    number: int


@dataclass(frozen=True)
class RankedBlock:
    """A block of units whose ranked part is written, with the statistics of its units in their order."""

    block: UnitBlock
    part: Part
    units: list[UnitSummary]
    footers: list[UnitFooter | None]
    """The footer of each unit's own rows in the part."""


class BlockPeaks(NamedTuple):
    """The peaks of some units, unit × image, as shards hold them, one shard after the other."""

    activation: NDArray[np.float32]
    location: NDArray[np.int32]
    """Location in one number, so that it is moved at once: the row in the upper 16 bits, the column below."""

    @classmethod
    def empty(cls, unit_count: int, image_count: int) -> "BlockPeaks":
        """Return peaks that are still to be filled in."""
        return cls(np.empty((unit_count, image_count), np.float32), np.empty((unit_count, image_count), np.int32))


def ranking_memory(image_count: int, unit_count: int) -> int:
    """Return the bytes that a ranking worker holds for a layer of so many units.

    For each image 8 × BLOCK_UNITS for the peaks of a block, about 80 while a unit is sorted and written, 24 for its
    label and where its peaks are, and 2 for each block of the layer, for the footers of its parts.
    """
    return image_count * (8 * BLOCK_UNITS + 80 + 24 + 2 * -(-unit_count // BLOCK_UNITS))


class Ranker:
    """A worker's task that ranks blocks of units, one unit after the other.

    What it holds for each image, whatever the number of units and shards, says `ranking_memory`; an image's id besides
    only where not all peaks of a unit are finite.
    """

    def __init__(self, segment: SegmentImages, keep: int | None = None) -> None:
        """Hold what all blocks of a segment have in common; `keep`: the count of first ranks that are written of each
        unit, None for all; statistics are always those of all.
        """
        keep_freed_memory()
        self.segment, self.store, self.keep = segment, segment.store, keep
        images = segment.read(["labels", "shard", "shard_row"])
        self.labels = Labels(images["labels"])
        names = pa.array([receipt.shard for receipt in segment.receipts], pa.string())
        shards = pc.index_in(images["shard"], value_set=names).to_numpy()
        rows = images["shard_row"].to_numpy()
        order = np.lexsort((rows, shards))
        ends = np.searchsorted(shards[order], np.arange(len(names) + 1))
        self.numbering = Numbering.of(order)
        self.footers: dict[str, pq.FileMetaData] = {}
        self.footers_of = ""
        self.sources = [
            (receipt, rows[order[first:end]])
            for receipt, (first, end) in zip(segment.receipts, pairwise(ends), strict=True)
            if first < end
        ]

    def __call__(self, block: UnitBlock) -> RankedBlock:
        """Write the block's ranked part; returns it with the statistics of each unit."""
        units: list[UnitSummary] = []
        footers: list[UnitFooter | None] = []

        def ranks() -> Iterator[pa.Table]:
            for ranked, summary in self.units(block):
                units.append(summary)
                yield ranked

        def write(file: Path) -> None:
            if len(self.numbering.numbers) >= tables.FOOTER_IMAGES:
                footers.extend(write_with_footers(file, ranks()))
            else:
                write_ranked(file, ranks())
                footers.extend(None for _ in units)

        path = layout.ranked(block.layer, block.number, self.segment.name)
        part = write_atomically(self.store, path, write, 0)
        rank_counts = (unit.image_count for unit in units)
        rows = sum(rank_counts) if self.keep is None else sum(min(self.keep, count) for count in rank_counts)
        return RankedBlock(block, part.model_copy(update={"rows": rows}), units, footers)

    def units(self, block: UnitBlock) -> Iterator[tuple[pa.Table, UnitSummary]]:
        """Yield the ranks that are written of each unit of a block, and its statistics, one unit after the other."""
        peaks = self._gather(block)
        for number, (activation, location) in enumerate(zip(*peaks, strict=True)):
            unit = block.number * BLOCK_UNITS + number
            ranked = rank_peaks(unit, activation, location, self.numbering)
            nonfinite = self.numbering.numbers[~np.isfinite(activation)]
            yield ranked.slice(0, self.keep), self._summary(unit, ranked, np.sort(nonfinite))

    def _gather(self, block: UnitBlock) -> BlockPeaks:
        """Read the peaks of a block's units on all images."""
        if self.footers_of != block.layer:
            self.footers, self.footers_of = {}, block.layer
            self.store.fetch(receipt.peaks[block.layer] for receipt, _ in self.sources)
        peaks, first = BlockPeaks.empty(0, 0), 0
        for receipt, rows in self.sources:
            table = self._read(receipt.peaks[block.layer], block.number)
            shape = table.num_rows // receipt.forward_count, receipt.forward_count
            activation, row, col = (table[name].to_numpy().reshape(shape) for name in ("activation", "row", "col"))
            location = row.astype(np.int32) << 16 | col
            if not first:
                peaks = BlockPeaks.empty(len(location), len(self.numbering.numbers))
            chosen = slice(None) if len(rows) == receipt.forward_count else rows
            peaks.activation[:, first : first + len(rows)] = activation[:, chosen]
            peaks.location[:, first : first + len(rows)] = location[:, chosen]
            first += len(rows)
        return peaks

    def _read(self, part: Part, group: int) -> pa.Table:
        """Read a row group of a peaks part, whose footer is read once for all blocks of a layer."""
        columns = ["activation", "row", "col"]
        with (
            self.store.hold(part) as path,
            pq.ParquetFile(path, metadata=self.footers.get(part.path), pre_buffer=False) as file,
        ):
            self.footers[part.path] = file.metadata
            return file.read_row_group(group, columns=columns, use_threads=False)

    def _summary(self, unit: int, ranked: pa.Table, nonfinite: NDArray[np.integer[Any]]) -> UnitSummary:
        """Return a unit's statistics; `nonfinite`: the images without a finite peak, in ascending order."""
        names: list[str] = []
        if len(nonfinite):
            ids = self.segment.read(["image_id"])["image_id"]
            names = ids.take(pa.array(nonfinite[:NONFINITE_NAMED])).to_pylist()
        summary = unit_statistics(unit, ranked["activation"].to_numpy(), len(nonfinite))
        constant = summary.minimum == summary.maximum
        return replace(
            summary,
            # the ranks of a constant unit are in the order of the images' ids
            top_labels=() if constant else self.labels.of_first_ranks(ranked["image"].to_numpy()),
            nonfinite_images=names,
        )


class Numbering(NamedTuple):
    """The images by their numbers in the order in which shards hold them, and where each image is in that order."""

    numbers: NDArray[np.int32]
    positions: NDArray[np.int32]

    @classmethod
    def of(cls, numbers: NDArray[np.integer[Any]]) -> "Numbering":
        """Return the numbering of images that shards hold in this order."""
        positions = np.empty(len(numbers), np.int32)
        positions[numbers] = np.arange(len(numbers), dtype=np.int32)
        return cls(numbers.astype(np.int32), positions)


def rank_peaks(
    unit: int, activation: NDArray[np.float32], location: NDArray[np.int32], numbering: Numbering
) -> pa.Table:
    """Rank a unit's finite peaks by descending activation, ties by ascending image."""
    finite = np.isfinite(activation)
    numbers = numbering.numbers
    if not finite.all():
        activation, numbers = activation[finite], numbers[finite]
    keys = rank_keys(activation, numbers)
    keys.sort()
    images = images_of_keys(keys)
    locations = location[numbering.positions[images]]
    columns = {
        "unit": np.full(len(keys), unit, np.int32),
        "rank": np.arange(len(keys), dtype=np.int32),
        "image": images,
        "activation": activations_of_keys(keys),
        "row": (locations >> 16).astype(np.int16),
        "col": locations.astype(np.int16),
    }
    return pa.table(columns, schema=tables.RANKED)
