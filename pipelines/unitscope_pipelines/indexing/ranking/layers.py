"""All layers of a version are ranked, block by block, on the workers of a cluster."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa

from unitscope_pipelines import cluster
from unitscope_pipelines.indexing.ranking.ranker import RankedBlock, Ranker, RankPlan, UnitBlock
from unitscope_pipelines.storage.parts import write_table
from unitscope_schemas import layout, tables
from unitscope_schemas.errors import AtlasError
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry
from unitscope_schemas.progress import Progress, Report
from unitscope_schemas.units import LayerSpec


def rank_layers(
    plan: RankPlan, layers: Sequence[LayerSpec], workers: cluster.Resources, report: Report
) -> list[LayerEntry]:
    """Rank all blocks of units on all workers, and write the statistics of each layer."""
    blocks = [UnitBlock(layer.name, number) for layer in layers for number in range(-(-layer.units // BLOCK_UNITS))]
    report(Progress("rank", 0, len(blocks), "blocks of units"))
    nodes = Counter[str]()
    ranked: dict[str, list[RankedBlock]] = {layer.name: [] for layer in layers}
    cpu_only = replace(workers, cpus=1.0, gpus=0.0) if workers.gpus else workers
    for done in cluster.each(partial(Ranker, plan), blocks, cpu_only):
        ranked[done.result.block.layer].append(done.result)
        nodes[done.node] += 1
        report(Progress("rank", nodes.total(), len(blocks), "blocks of units", dict(nodes)))
    return [_layer_entry(plan, layer, ranked[layer.name]) for layer in layers]


def _layer_entry(plan: RankPlan, layer: LayerSpec, blocks: list[RankedBlock]) -> LayerEntry:
    """Write the statistics of a layer; raises AtlasError if there are not those of each unit."""
    blocks.sort(key=lambda ranked: ranked.block.number)
    rows = [unit.as_row() for ranked in blocks for unit in ranked.units]
    if len(rows) != layer.units:
        raise AtlasError(f"layer {layer.name} has {layer.units} units but {len(rows)} were ranked")
    table = pa.Table.from_pylist(rows, schema=tables.UNITS)
    units = write_table(plan.store, layout.units(layer.name, plan.version), table)
    return LayerEntry(spec=layer, units=units, ranked=[ranked.part for ranked in blocks])
