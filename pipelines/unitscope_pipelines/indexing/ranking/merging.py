"""The statistics of units over several segments: those that ranking all of their images at once would give."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_pipelines.indexing.ranking.ranker import NONFINITE_NAMED, UnitBlock
from unitscope_pipelines.indexing.ranking.statistics import Labels, UnitSummary, unit_statistics
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.segments.images import images_of_segments
from unitscope_pipelines.storage.segments.ranked_rows import Columns, RankedRows
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.vision.recording.memory import keep_freed_memory
from unitscope_schemas import tables
from unitscope_schemas.entries.segment import Segment
from unitscope_schemas.manifest import BLOCK_UNITS


@dataclass(frozen=True)
class MergePlan:
    """What all blocks of a version have in common."""

    store: Store
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class MergedBlock:
    """The statistics of a block of units over all segments."""

    block: UnitBlock
    units: list[UnitSummary]


def merging_memory(image_count: int) -> int:
    """Return the bytes that a worker holds which makes statistics over segments: for each image 24 while a unit's
    activations are sorted and counted, and 24 for its number and labels.
    """
    return image_count * (24 + 24)


class Merger:
    """A worker's task that makes the statistics of blocks of units from the ranks of all segments.

    Reads every activation once, 4 bytes for each image and unit, and sorts them; what it holds says `merging_memory`.
    """

    def __init__(self, plan: MergePlan) -> None:
        keep_freed_memory()
        self.plan = plan
        self.labels = Labels(images_of_segments(plan.store, plan.segments, None, ["labels"])["labels"])
        self._rows = lru_cache(1)(lambda layer: RankedRows.of(plan.store, layer, plan.segments))
        self._stored = lru_cache(1)(lambda layer: [self._read_units(segment, layer) for segment in plan.segments])

    def __call__(self, block: UnitBlock) -> MergedBlock:
        """Return the statistics of the block's units."""
        rows, counted = self._rows(block.layer), self._stored(block.layer)
        first = block.number * BLOCK_UNITS
        channels = range(first, min(first + BLOCK_UNITS, counted[0].num_rows))
        leads = dict(rows.units(block.number, ["image"], tables.TOP_LABEL_RANKS))
        found = {
            channel: self._summary(channel, whole["activation"], leads[channel], counted)
            for channel, whole in rows.units(block.number, ["activation"])
        }
        nothing = np.empty(0, np.float32)
        units = [found.get(channel) or self._summary(channel, nothing, {}, counted) for channel in channels]
        return MergedBlock(block, units)

    def _summary(
        self, channel: int, activations: NDArray[np.float32], leads: Columns, counted: list[pa.Table]
    ) -> UnitSummary:
        """Return a unit's statistics from its activations in rank order and its first images."""
        nonfinite = sum(int(table["nonfinite_count"][channel].as_py()) for table in counted)
        named = sorted(name for table in counted for name in table["nonfinite_images"][channel].as_py())
        summary = unit_statistics(channel, activations, nonfinite)
        constant = summary.minimum == summary.maximum
        return replace(
            summary,
            # the ranks of a constant unit are in the order of the images' ids
            top_labels=() if constant else self.labels.of_first_ranks(leads["image"]),
            nonfinite_images=named[:NONFINITE_NAMED],
        )

    def _read_units(self, segment: Segment, layer: str) -> pa.Table:
        units = segment.layers[layer].units
        return read_part(self.plan.store, units, ["unit", "nonfinite_count", "nonfinite_images"])
