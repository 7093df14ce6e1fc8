"""All layers are ranked over the images of a segment, block by block, on the workers of a cluster; and where a version
has several segments, their statistics are made of all.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import pyarrow as pa

from unitscope_pipelines.cluster.resources import Resources
from unitscope_pipelines.cluster.workers import each
from unitscope_pipelines.indexing.ranking.merging import MergePlan, Merger
from unitscope_pipelines.indexing.ranking.ranker import RankedBlock, Ranker, UnitBlock
from unitscope_pipelines.indexing.ranking.statistics import UnitSummary
from unitscope_pipelines.storage.parts import write_table
from unitscope_pipelines.storage.segments.images import SegmentImages
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import RankedLayer
from unitscope_schemas.errors import AtlasError
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry
from unitscope_schemas.progress import Progress, Report, Stage
from unitscope_schemas.units import LayerSpec


@dataclass(frozen=True)
class OnWorkers:
    """Where tasks run, and who hears of them."""

    workers: Resources
    report: Report


def rank_layers(
    images: SegmentImages, keep: int | None, layers: Sequence[LayerSpec], run: OnWorkers
) -> dict[str, RankedLayer]:
    """Rank all blocks of units on all workers, and write the statistics of each layer."""
    ranked = _each_block("rank", partial(Ranker, images, keep), layers, run)
    return {
        layer.name: RankedLayer(
            units=_write_units(images.store, layer, images.name, ranked[layer.name], _footers(ranked[layer.name])),
            ranked=[block.part for block in ranked[layer.name]],
        )
        for layer in layers
    }


def merge_layers(plan: MergePlan, version: str, layers: Sequence[LayerSpec], run: OnWorkers) -> list[LayerEntry]:
    """Make the statistics of all units over all segments on all workers, and write those of each layer."""
    merged = _each_block("merge", partial(Merger, plan), layers, run)
    return [
        LayerEntry(spec=layer, units=_write_units(plan.store, layer, version, merged[layer.name])) for layer in layers
    ]


class Block(Protocol):
    """What a task says of a block of units."""

    @property
    def block(self) -> UnitBlock:
        """The block that the statistics are of."""

    @property
    def units(self) -> Sequence[UnitSummary]:
        """The statistics of its units in their order."""


Done = TypeVar("Done", bound=Block)


def _each_block(
    stage: Stage, task: Callable[[], Callable[[UnitBlock], Done]], layers: Sequence[LayerSpec], run: OnWorkers
) -> dict[str, list[Done]]:
    """Run a task for all blocks of units, and return what it says of each in their order, by layer."""
    blocks = [UnitBlock(layer.name, number) for layer in layers for number in range(-(-layer.units // BLOCK_UNITS))]
    run.report(Progress(stage, 0, len(blocks), "blocks of units"))
    nodes = Counter[str]()
    found: dict[str, list[Done]] = {layer.name: [] for layer in layers}
    workers = replace(run.workers, cpus=1.0, gpus=0.0) if run.workers.gpus else run.workers
    for done in each(task, blocks, workers):
        found[done.result.block.layer].append(done.result)
        nodes[done.node] += 1
        run.report(Progress(stage, nodes.total(), len(blocks), "blocks of units", dict(nodes)))
    return {layer: sorted(own, key=lambda one: one.block.number) for layer, own in found.items()}


def _footers(blocks: Sequence[RankedBlock]) -> pa.Array | None:
    """Return the footers of units in the ranked parts of their blocks as a column; None where no unit has one."""
    footers = [footer and footer._asdict() for block in blocks for footer in block.footers]
    return pa.array(footers, tables.SEGMENT_UNITS.field(tables.FOOTER).type) if any(footers) else None


def _write_units(
    store: Store, layer: LayerSpec, name: str, blocks: Sequence[Block], footers: pa.Array | None = None
) -> Part:
    """Write the statistics of a layer, of a segment with the units' footers; raises AtlasError if there are not those
    of each unit.
    """
    rows = [unit.as_row() for block in blocks for unit in block.units]
    if len(rows) != layer.units:
        raise AtlasError(f"layer {layer.name} has {layer.units} units but {len(rows)} were ranked")
    units = pa.Table.from_pylist(rows, schema=tables.UNITS)
    if footers is not None:
        units = units.append_column(tables.SEGMENT_UNITS.field(tables.FOOTER), footers)
    return write_table(store, layout.units(layer.name, name), units)
