"""The ranked tables that questions read: peaks of all shards, sorted unit by unit, with statistics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.catalogue import read_part
from pipelines.storage import parquet_writer, write_atomically
from schemas import layout, tables
from schemas.manifest import BLOCK_UNITS, Part, Receipt

RARE_SHARE = 0.01
"""A unit above zero on fewer than this share of the images is rare."""
_NONFINITE_NAMED = 100


@dataclass(frozen=True)
class RankPlan:
    """What all blocks of a version have in common."""

    atlas: Path
    version: str
    images: Part
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True)
class Block:
    """Up to BLOCK_UNITS consecutive units of a layer, from unit number × BLOCK_UNITS."""

    layer: str
    number: int


@dataclass(frozen=True)
class RankedBlock:
    block: Block
    part: Part
    units: list[dict[str, Any]]


class Ranker:
    """Ranks blocks of units; memory grows with images × BLOCK_UNITS, not with units or shards."""

    def __init__(self, plan: RankPlan) -> None:
        self.plan = plan
        images = read_part(plan.atlas, plan.images, ["image", "image_id", "label", "shard", "shard_row"])
        self.ids = images["image_id"]
        self.labels = Labels(images["label"])
        shards, rows = images["shard"].to_numpy(), images["shard_row"].to_numpy()
        self.image_count = len(rows)
        self.sources = []
        for receipt in plan.receipts:
            numbers = np.flatnonzero(shards == receipt.shard).astype(np.int32)
            if len(numbers):
                self.sources.append((receipt, numbers, rows[numbers]))

    def __call__(self, block: Block) -> RankedBlock:
        """Write the block's ranked part; returns it with one statistics row per unit."""
        peaks = self._gather(block)
        ranked = [rank_peaks(unit, row) for unit, row in peaks]
        statistics = [
            unit_statistics(unit, row["activation"], table["image"].to_numpy(), self.ids, self.labels)
            for (unit, row), table in zip(peaks, ranked, strict=True)
        ]

        def write(file: Path) -> None:
            with parquet_writer(file, tables.RANKED) as writer:
                for table in ranked:
                    writer.write_table(table, row_group_size=max(1, table.num_rows))

        path = layout.ranked(block.layer, block.number, self.plan.version)
        rows = sum(table.num_rows for table in ranked)
        return RankedBlock(block, write_atomically(self.plan.atlas, path, write, rows), statistics)

    def _gather(self, block: Block) -> list[tuple[int, dict[str, NDArray[Any]]]]:
        """For each unit of the block its peak on every image, in order of image numbers."""
        gathered: dict[str, NDArray[Any]] = {}
        unit_count = 0
        for receipt, numbers, rows in self.sources:
            part = receipt.peaks[block.layer]
            with pq.ParquetFile(self.plan.atlas / part.path) as file:
                table = file.read_row_group(block.number, columns=["activation", "row", "col"])
            unit_count = table.num_rows // receipt.forward_count
            for name in table.column_names:
                cells = table[name].to_numpy().reshape(unit_count, receipt.forward_count)
                target = gathered.setdefault(name, np.empty((unit_count, self.image_count), cells.dtype))
                target[:, numbers] = cells[:, rows]
        first = block.number * BLOCK_UNITS
        return [
            (first + position, {name: cells[position] for name, cells in gathered.items()})
            for position in range(unit_count)
        ]


class Labels:
    """Labels of all images as numbers, for counting."""

    def __init__(self, labels: pa.ChunkedArray) -> None:
        encoded = labels.combine_chunks().dictionary_encode()
        self.names: list[str] = encoded.dictionary.to_pylist()
        self.codes: NDArray[Any] = encoded.indices.fill_null(len(self.names)).to_numpy(zero_copy_only=False)
        self.counts = np.bincount(self.codes, minlength=len(self.names) + 1)

    def of_first_ranks(self, images: NDArray[np.int32]) -> list[dict[str, Any]]:
        """Count, share and lift (share over the label's share of the corpus) among a unit's first ranks."""
        if not self.names or not len(images):
            return []
        counts = np.bincount(self.codes[images[: tables.TOP_LABEL_RANKS]], minlength=len(self.names) + 1)[:-1]
        total = min(len(images), tables.TOP_LABEL_RANKS)
        found = [
            {
                "label": self.names[code],
                "count": int(counts[code]),
                "share": float(counts[code] / total),
                "lift": float(counts[code] / total / (self.counts[code] / len(self.codes))),
            }
            for code in np.flatnonzero(counts)
        ]
        return sorted(found, key=lambda row: (-row["count"], -row["lift"], row["label"]))


def unit_statistics(
    unit: int, activation: NDArray[np.float32], ranked: NDArray[np.int32], ids: pa.ChunkedArray, labels: Labels
) -> dict[str, Any]:
    """One row of the units table from the unit's peaks in image order and its images in rank order."""
    finite = np.isfinite(activation)
    values = np.sort(activation[finite])
    strange = np.flatnonzero(~finite)
    row: dict[str, Any] = {
        "unit": unit,
        "status": status(values, len(strange)),
        "image_count": len(values),
        "positive_count": int((values > 0).sum()),
        "zero_count": int((values == 0).sum()),
        "nonfinite_count": len(strange),
        "knots": [],
        "histogram": [],
        "top_labels": labels.of_first_ranks(ranked),
        "nonfinite_images": ids.take(pa.array(strange[:_NONFINITE_NAMED])).to_pylist(),
    }
    if len(values):
        knots = np.minimum((np.array(tables.KNOT_SHARES) * len(values)).astype(np.int64), len(values) - 1)
        row |= {
            "minimum": values[0],
            "maximum": values[-1],
            "mean": float(values.mean(dtype=np.float64)),
            "std": float(values.std(dtype=np.float64)),
            "knots": values[knots],
            "histogram": histogram(values),
        }
    return row


def status(values: NDArray[np.float32], nonfinite_count: int) -> str:
    """Status of a unit from its finite peaks in ascending order.

    non-finite: NaN or infinite on some image; dead: the same value on every image; negative-only: never above
    zero; rare: above zero on fewer than 1 % of the images; otherwise live.
    """
    if nonfinite_count:
        return "non-finite"
    if values[0] == values[-1]:
        return "dead"
    if values[-1] <= 0:
        return "negative-only"
    return "rare" if (values > 0).mean() < RARE_SHARE else "live"


def histogram(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Counts in equal bins between the lowest and the highest of the ascending values."""
    low, high = float(values[0]), float(values[-1])
    if low == high:
        return np.array([len(values)] + [0] * (tables.HISTOGRAM_BINS - 1))
    return np.histogram(values.astype(np.float64), bins=tables.HISTOGRAM_BINS, range=(low, high))[0]


def rank_peaks(unit: int, peaks: dict[str, NDArray[Any]]) -> pa.Table:
    """A unit's finite peaks by descending activation, ties by ascending image number."""
    finite = np.flatnonzero(np.isfinite(peaks["activation"]))
    order = finite[np.argsort(-peaks["activation"][finite], kind="stable")].astype(np.int32)
    count = len(order)
    columns = [
        np.full(count, unit, np.int32),
        np.arange(count, dtype=np.int32),
        order,
        *(peaks[name][order] for name in ("activation", "row", "col")),
    ]
    return pa.table([pa.array(column) for column in columns], schema=tables.RANKED)
