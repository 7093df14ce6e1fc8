"""The main job: plan, scan what is pending, commit, rank, embed, seal."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import cluster
from pipelines.catalogue import Catalogue, catalogue, known_ids, pending_files
from pipelines.config import IndexConfig
from pipelines.corpus import CorpusFile, Listing, list_corpus
from pipelines.exemplars import Block, Ranker, RankPlan
from pipelines.hot import build_hot
from pipelines.patches import EmbeddedLayer, build_patches
from pipelines.scan import Scanner, ScanPlan, Shard
from pipelines.storage import (
    locked,
    read_manifest,
    read_measured,
    read_receipts,
    remove_unfinished,
    write_model,
    write_table,
)
from pipelines.vision.embedding import region_boxes
from pipelines.vision.models import choose_layers, load_model
from pipelines.vision.receptive_fields import measure_layers
from schemas import layout, tables
from schemas.errors import AtlasError, UsageError, listing
from schemas.manifest import (
    BLOCK_UNITS,
    FORMAT_VERSION,
    CorpusEntry,
    LayerEntry,
    Manifest,
    MeasuredLayers,
    Part,
    Receipt,
    atlas_key,
)
from schemas.units import LayerSpec

_SHARDS_PER_WORKER = 4
"""At least so many where the corpus is small: whole batches, evenly spread, with progress to see."""
_BYTES_PER_CELL = 9.0
"""Peaks and ranked tables together, measured on a thousand photographs."""


@dataclass(frozen=True)
class Progress:
    """How far a stage of the run has come."""

    stage: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Plan:
    """What a run would do: the work that is pending, before any of it is done."""

    config: IndexConfig
    scan: ScanPlan
    listing: Listing
    pending: list[CorpusFile]
    finished: list[Receipt]
    previous: Manifest | None

    @property
    def cells_per_image(self) -> int:
        """Units over all layers: rows that one image adds."""
        return sum(layer.units for layer in self.scan.layers)

    def forecast(self) -> dict[str, int]:
        """Rows and bytes of the finished atlas, and the files still to be read."""
        rows = len(self.listing.files) * self.cells_per_image
        return {
            "files": len(self.listing.files),
            "pending_files": len(self.pending),
            "units": self.cells_per_image,
            "rows": rows,
            "size_bytes": int(rows * _BYTES_PER_CELL),
        }


Report = Callable[[Progress], None]


def index(config: IndexConfig, report: Report) -> Manifest:
    """Bring the atlas up to date with the corpus and return its sealed manifest.

    Finished shards of an earlier, killed run are kept; files that were added since the last version cost their
    own forwards only; a run with nothing to do changes nothing.
    """
    atlas = Path(config.atlas).absolute()
    corpus = list_corpus(config.corpus, config.limit)
    with locked(atlas):
        remove_unfinished(atlas)
        plan = make_plan(config, corpus, report)
        key = plan.scan.atlas_key
        if read_measured(atlas, key) is None:
            write_model(atlas, layout.measured(key), MeasuredLayers(atlas_key=key, layers=list(plan.scan.layers)))
        if not plan.pending and plan.previous is not None:
            found = catalogue(plan.listing, plan.finished, atlas)
            if plan.previous.version == _version_name(plan.scan.atlas_key, found):
                return plan.previous
        with cluster.connected(config.address):
            workers = cluster.resources(config.workers, config.device)
            receipts = plan.finished + _scan(plan, workers, report)
            found = catalogue(plan.listing, receipts, atlas)
            return _commit(plan, found, receipts, workers, report)


def make_plan(config: IndexConfig, corpus: Listing, report: Report) -> Plan:
    """Load the model, measure its layers and find out what is pending; writes nothing.

    Raises UsageError if the atlas was made with another model, preprocessing, layers, precision or batch size.
    """
    report(Progress("plan", 0, 1, "model"))
    atlas = Path(config.atlas).absolute()
    previous = read_manifest(atlas)
    model = load_model(config.model, config.weights)
    names = choose_layers(model, config.layers)
    key = atlas_key(model.entry, model.preprocessing, names, config.precision, config.batch_size)
    if previous is not None and previous.atlas_key != key:
        _refuse_other_atlas(previous, config, names, model.entry.weights_digest)
    layers = read_measured(atlas, key) or measure_layers(model.module, names, model.input_shape)
    embed = config.embed or (previous.patches.layer if previous else names[-1])
    if embed not in names:
        raise UsageError(f"embedding layer {embed!r} is not recorded; recorded are {listing(names)}")
    if previous is not None and previous.patches.layer != embed:
        raise UsageError(f"the atlas embeds {previous.patches.layer!r}; use another directory to embed {embed!r}")
    finished = read_receipts(atlas, key)
    if mixed := {path for receipt in finished for path in _embedded(receipt)} - {embed}:
        raise UsageError(f"finished shards of {atlas} embed {listing(mixed)}; use --embed with it or another directory")
    scan = ScanPlan(
        corpus=corpus.root,
        atlas=atlas,
        atlas_key=key,
        model=model.entry,
        preprocessing=model.preprocessing,
        layers=tuple(layers),
        embed_layer=embed,
        batch_size=config.batch_size,
        precision=config.precision,
        device=config.device,
        most_pixels=config.most_pixels,
        known_ids=known_ids(finished, atlas),
    )
    return Plan(config, scan, corpus, pending_files(corpus, finished, atlas), finished, previous)


def cut_shards(files: list[CorpusFile], size: int) -> list[Shard]:
    """Cut files into shards named by their content, so that a shard that runs again replaces itself."""
    shards = []
    for start in range(0, len(files), size):
        part = tuple(files[start : start + size])
        listed = json.dumps([(file.path, file.size_bytes, file.modified_ns) for file in part])
        shards.append(Shard(hashlib.sha256(listed.encode()).hexdigest()[:16], part))
    return shards


def _scan(plan: Plan, workers: cluster.Resources, report: Report) -> list[Receipt]:
    batch = plan.config.batch_size
    even = -(-len(plan.pending) // (_SHARDS_PER_WORKER * workers.worker_count))
    shards = cut_shards(plan.pending, min(plan.config.shard_size, max(1, -(-even // batch)) * batch))
    done = 0
    report(Progress("scan", done, len(plan.pending), "files"))
    receipts = []
    for receipt in cluster.each(_make_scanner(plan.scan), shards, workers):
        receipts.append(receipt)
        done += receipt.files.rows + receipt.skipped.rows
        report(Progress("scan", done, len(plan.pending), "files"))
    return receipts


def _make_scanner(plan: ScanPlan) -> Callable[[], Scanner]:
    return lambda: Scanner(plan)


def _make_ranker(plan: RankPlan) -> Callable[[], Ranker]:
    return lambda: Ranker(plan)


def _commit(
    plan: Plan,
    found: Catalogue,
    receipts: list[Receipt],
    workers: cluster.Resources,
    report: Report,
) -> Manifest:
    """Write everything the version needs beside what earlier ones use, and the manifest last."""
    atlas = plan.scan.atlas
    version = _version_name(plan.scan.atlas_key, found)
    images = write_table(atlas, layout.images_of(version), found.images)
    skipped = write_table(atlas, layout.skipped_of(version), found.skipped)
    used = [receipt for receipt in receipts if receipt.forward_count]
    layers = _rank(plan, RankPlan(atlas, version, images, tuple(used)), workers, report)
    report(Progress("embed", 0, 1, "index"))
    embed = next(layer for layer in plan.scan.layers if layer.name == plan.scan.embed_layer)
    embedded = EmbeddedLayer(embed.name, embed.units, region_boxes(embed))
    patches = build_patches(atlas, version, embedded, used, images)
    report(Progress("embed", 1, 1, "index"))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        unitscope_version=installed_version("unitscope"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        atlas_key=plan.scan.atlas_key,
        version=version,
        model=plan.scan.model,
        preprocessing=plan.scan.preprocessing,
        precision=plan.config.precision,
        batch_size=plan.config.batch_size,
        corpus=CorpusEntry(
            root=str(plan.listing.root),
            image_count=images.rows,
            file_count=found.file_count,
            skipped_count=skipped.rows,
            ignored_count=plan.listing.ignored_count,
            label_count=len(pc.unique(found.images["label"].drop_null())),
        ),
        layers=layers,
        images=images,
        skipped=skipped,
        hot=build_hot(atlas, version, images),
        patches=patches,
        shards=receipts,
        forward_count=sum(receipt.forward_count for receipt in receipts)
        - sum(receipt.forward_count for receipt in plan.finished),
        config=plan.config.model_dump(mode="json"),
    )
    write_model(atlas, layout.MANIFEST, manifest)
    return manifest


def _rank(plan: Plan, ranking: RankPlan, workers: cluster.Resources, report: Report) -> list[LayerEntry]:
    blocks = [
        Block(layer.name, number) for layer in plan.scan.layers for number in range(-(-layer.units // BLOCK_UNITS))
    ]
    report(Progress("rank", 0, len(blocks), "blocks of units"))
    done = []
    cpu_only = replace(workers, cpus=1.0, gpus=0.0) if workers.gpus else workers
    for ranked in cluster.each(_make_ranker(ranking), blocks, cpu_only):
        done.append(ranked)
        report(Progress("rank", len(done), len(blocks), "blocks of units"))
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


def _refuse_other_atlas(previous: Manifest, config: IndexConfig, names: list[str], weights_digest: str) -> NoReturn:
    """One directory holds one atlas: say what differs instead of replacing it."""
    was = [entry.spec.name for entry in previous.layers]
    differences = [
        text
        for differs, text in (
            (
                previous.model.weights_digest != weights_digest,
                f"weights of {previous.model.spec} ({previous.model.weights})",
            ),
            (was != names, f"layers {listing(was)}"),
            (previous.precision != config.precision, f"precision {previous.precision}"),
            (previous.batch_size != config.batch_size, f"batch size {previous.batch_size}"),
        )
        if differs
    ] or ["other preprocessing"]
    raise UsageError(
        f"{config.atlas} is an atlas of {'; '.join(differences)}; repeat those options, or name another directory"
    )


def _version_name(key: str, found: Catalogue) -> str:
    """Digest of what a version holds, so that the same corpus and model give the same version."""
    digest = hashlib.sha256(key.encode())
    for table, names in (
        (found.images, ["image_id", "path", "other_paths", "label", "modified_ns"]),
        (found.skipped, tables.SKIPPED.names),
    ):
        digest.update(json.dumps(table.select(names).to_pydict()).encode())
    return digest.hexdigest()[:16]


def _embedded(receipt: Receipt) -> set[str]:
    return {Path(receipt.embeddings.path).parent.name}
