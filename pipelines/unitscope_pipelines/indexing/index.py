"""The main job: plan, scan what is pending, commit, rank, embed, seal."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as installed_version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines import cluster
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.indexing.catalogue import Catalogue, catalogue
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.lookup import build_hot
from unitscope_pipelines.indexing.patches.build import EmbeddedLayer, build_patches
from unitscope_pipelines.indexing.plan import Plan, make_plan, scanned_again
from unitscope_pipelines.indexing.ranking import Block, Ranker, RankPlan
from unitscope_pipelines.indexing.removed import once_removed, present, write_removed
from unitscope_pipelines.indexing.scan import Scanner
from unitscope_pipelines.indexing.versions import kept_version, remove_ranked_peaks, seal
from unitscope_pipelines.storage.parts import locked, read_measured, remove_unfinished, write_model, write_table
from unitscope_pipelines.storage.stores import absolute
from unitscope_pipelines.storage.tombstones import removed_images
from unitscope_pipelines.vision.recording.embedding import region_boxes
from unitscope_schemas import layout, tables
from unitscope_schemas.errors import AtlasError
from unitscope_schemas.manifest import (
    BLOCK_UNITS,
    FORMAT_VERSION,
    CorpusEntry,
    LayerEntry,
    Manifest,
    MeasuredLayers,
    Part,
    Receipt,
    Removed,
)
from unitscope_schemas.progress import Progress, Report
from unitscope_schemas.units import LayerSpec

_SLOW_BF16 = "bf16 is meant for GPUs: on most CPUs fp32 is faster, and exact"


def index(config: IndexConfig, report: Report) -> Manifest:
    """Bring the atlas up to date with the corpus and return its sealed manifest.

    Finished shards of an earlier, killed run are kept; files that were added since the last version cost their
    own forwards only; a run with nothing to do changes nothing. Images that were removed by hand stay out: a run that
    has anything to do leaves no tombstone, one with nothing to do keeps them. Without a manifest every image stays out
    that was ever removed and whose table `gc` has not deleted.

    A bounded atlas (`keep`) holds the first ranks of each unit and no peaks. To grow or to keep other ranks it needs
    the forwards of all files again, and says so: merging could keep first ranks exact, but not quantiles.
    """
    atlas = absolute(config.atlas)
    corpus = list_corpus(config.corpus, config.limit)
    with locked(atlas):
        remove_unfinished(atlas)
        remove_ranked_peaks(atlas)
        plan = make_plan(config, corpus, report)
        key = plan.scan.atlas_key
        if read_measured(atlas, key) is None:
            write_model(atlas, layout.measured(key), MeasuredLayers(atlas_key=key, layers=list(plan.scan.layers)))
        out = once_removed(atlas) if plan.previous is None else removed_images(plan.previous, atlas)
        removed = frozenset(out["image_id"].to_pylist())
        if not plan.pending and plan.previous is not None:
            found = catalogue(plan.listing, plan.finished, atlas, removed)
            if _holds(plan, found):
                return plan.previous
        with cluster.connected(config.address):
            workers = cluster.resources(config.workers, config.device)
            new = _scan(plan, workers, report)
            receipts = plan.finished + new
            found = catalogue(plan.listing, receipts, atlas, removed)
            if plan.previous is not None and _holds(plan, found):
                return plan.previous
            if plan.lacks_peaks and kept_version(atlas, _version_name(key, found, plan.keep)) is None:
                plan = _renewed(plan, new, report)
                receipts = plan.finished + new + _scan(plan, workers, report, "again")
                found = catalogue(plan.listing, receipts, atlas, removed)
            manifest = commit(plan, found, receipts, workers, report)
        remove_unfinished(atlas)
        remove_ranked_peaks(atlas)
        return manifest


def expected(plan: Plan) -> Plan:
    """The plan with all that its run will scan, as far as can be known before it has read what is new."""
    if not plan.lacks_peaks:
        return plan
    if not plan.pending and plan.previous is not None:
        atlas = plan.scan.atlas
        removed = frozenset(removed_images(plan.previous, atlas)["image_id"].to_pylist())
        if _holds(plan, catalogue(plan.listing, plan.finished, atlas, removed)):
            return plan
    return scanned_again(plan)


def _renewed(plan: Plan, new: list[Receipt], report: Report) -> Plan:
    """The plan that scans again what a bounded atlas no longer has the peaks of; says so."""
    again = scanned_again(plan, new)
    note = (
        f"the atlas kept first ranks alone, and no peaks: {len(again.pending)} files are scanned again, for ranks and "
        "quantiles to be those of all pictures"
    )
    report(Progress("again", 0, len(again.pending), "files", note=note))
    return again


def _scan(plan: Plan, workers: cluster.Resources, report: Report, stage: str = "scan") -> list[Receipt]:
    shards = plan.shards(workers.slots)
    nodes = Counter[str]()
    skipped = rows = 0
    slow = plan.scan.precision == "bf16" and not workers.gpus
    report(Progress(stage, 0, len(plan.pending), "files", note=_SLOW_BF16 if slow else ""))
    receipts = []
    scan = replace(plan.scan, decoder_count=workers.decoder_count)
    for done in cluster.each(partial(Scanner, scan), shards, workers):
        receipt = done.result
        receipts.append(receipt)
        nodes[done.node] += receipt.files.rows + receipt.skipped.rows
        skipped += receipt.skipped.rows
        rows += sum(part.rows for part in receipt.peaks.values())
        report(Progress(stage, nodes.total(), len(plan.pending), "files", dict(nodes), skipped, rows))
    return receipts


def commit(
    plan: Plan,
    found: Catalogue,
    receipts: list[Receipt],
    workers: cluster.Resources,
    report: Report,
) -> Manifest:
    """Write everything the version needs beside what earlier ones use, and the manifest last.

    It leaves out shards all of whose pictures have left the corpus, so that `gc` can delete them.

    A version that was sealed before and is still there becomes the present one again as it is.
    """
    atlas = plan.scan.atlas
    receipts = [receipt for receipt in receipts if receipt.shard in found.shards]
    version = _version_name(plan.scan.atlas_key, found, plan.keep)
    kept = kept_version(atlas, version)
    if kept is not None:
        changed = _sealing(plan, found, receipts) | ({"shards": kept.shards} if plan.lacks_peaks else {})
        return seal(atlas, kept.model_copy(update=changed))
    images = write_table(atlas, layout.images_of(version), found.images)
    skipped = write_table(atlas, layout.skipped_of(version), found.skipped)
    used = [receipt for receipt in receipts if receipt.forward_count]
    layers = _rank(plan, RankPlan(atlas, version, images, tuple(used), plan.keep), workers, report)
    report(Progress("embed", 0, 1, "index"))
    embed = next(layer for layer in plan.scan.layers if layer.name == plan.scan.embed_layer)
    embedded = EmbeddedLayer(embed.name, embed.units, region_boxes(embed), plan.config.patch_memory_bytes)
    patches = build_patches(atlas, version, embedded, used, images)
    report(Progress("embed", 1, 1, "index"))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        atlas_key=plan.scan.atlas_key,
        version=version,
        model=plan.scan.model,
        preprocessing=plan.scan.preprocessing,
        precision=plan.config.precision,
        batch_size=plan.config.batch_size,
        layers=layers,
        images=images,
        skipped=skipped,
        hot=build_hot(atlas, version, images, layers),
        patches=patches,
        keep=plan.keep,
        **_sealing(plan, found, receipts),
    )
    return seal(atlas, manifest)


def _sealing(plan: Plan, found: Catalogue, receipts: list[Receipt]) -> dict[str, Any]:
    """What a manifest says about the run that seals it."""
    finished = {receipt.shard for receipt in plan.finished}
    return {
        "unitscope_version": installed_version("unitscope"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "corpus": CorpusEntry(
            root=plan.listing.root,
            image_count=found.images.num_rows,
            file_count=found.file_count,
            skipped_count=found.skipped.num_rows,
            ignored_count=plan.listing.ignored_count,
            label_count=len(pc.unique(found.images["label"].drop_null())),
        ),
        "shards": receipts if plan.keep is None else [receipt.without_peaks() for receipt in receipts],
        "forward_count": sum(receipt.forward_count for receipt in receipts if receipt.shard not in finished),
        "config": plan.config.model_dump(mode="json"),
        "removed": _removed(plan, _version_name(plan.scan.atlas_key, found, plan.keep)),
    }


def _removed(plan: Plan, version: str) -> Removed | None:
    """What is out of a version that holds no tombstone."""
    if plan.previous is not None:
        was = plan.previous.removed
        return was and was.model_copy(update={"stale": 0, "built": version})
    out = once_removed(plan.scan.atlas)
    return Removed(table=write_removed(plan.scan.atlas, out), stale=0, built=version) if out.num_rows else None


def _rank(plan: Plan, ranking: RankPlan, workers: cluster.Resources, report: Report) -> list[LayerEntry]:
    blocks = [
        Block(layer.name, number) for layer in plan.scan.layers for number in range(-(-layer.units // BLOCK_UNITS))
    ]
    report(Progress("rank", 0, len(blocks), "blocks of units"))
    nodes = Counter[str]()
    done = []
    cpu_only = replace(workers, cpus=1.0, gpus=0.0) if workers.gpus else workers
    for one in cluster.each(partial(Ranker, ranking), blocks, cpu_only):
        done.append(one.result)
        nodes[one.node] += 1
        report(Progress("rank", nodes.total(), len(blocks), "blocks of units", dict(nodes)))
    entries = []
    for layer in plan.scan.layers:
        own = sorted(
            (ranked for ranked in done if ranked.block.layer == layer.name), key=lambda ranked: ranked.block.number
        )
        rows = [row for ranked in own for row in ranked.units]
        entries.append(_layer_entry(layer, ranking, rows, [ranked.part for ranked in own]))
    return entries


def _layer_entry(layer: LayerSpec, ranking: RankPlan, rows: list[dict[str, object]], ranked: list[Part]) -> LayerEntry:
    if len(rows) != layer.units:
        raise AtlasError(f"layer {layer.name} has {layer.units} units but {len(rows)} were ranked")
    table = pa.Table.from_pylist(rows, schema=tables.UNITS)
    units = write_table(ranking.atlas, layout.units(layer.name, ranking.version), table)
    return LayerEntry(spec=layer, units=units, ranked=ranked)


def _holds(plan: Plan, found: Catalogue) -> bool:
    """Whether the present version shows the images and skipped files that were found, tombstones or not."""
    previous = plan.previous
    if previous is None:
        return False
    shown = previous.version
    if previous.stale_count:
        shown = _version_name(previous.atlas_key, present(previous, plan.scan.atlas), previous.keep)
    return shown == _version_name(previous.atlas_key, found, plan.keep)


def _version_name(key: str, found: Catalogue, keep: int | None) -> str:
    """Digest of what a version holds, so that the same corpus and model give the same version."""
    digest = hashlib.sha256(key.encode())
    if keep is not None:
        digest.update(f"top:{keep}".encode())
    for table, names in (
        (found.images, ["image_id", "path", "other_paths", "address", "label", "metadata", "modified_ns"]),
        (found.skipped, tables.SKIPPED.names),
    ):
        digest.update(json.dumps(table.select(names).to_pydict()).encode())
    return digest.hexdigest()[:16]
