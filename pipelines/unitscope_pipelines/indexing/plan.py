"""What an index run would do, found out before any of it is done."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

import numpy as np
import pyarrow as pa
import torch

from unitscope_pipelines.corpora.listing import Listing
from unitscope_pipelines.indexing.arithmetic import batch_size, device_kind
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.departures import check_listing, corpora_of
from unitscope_pipelines.indexing.patches.index import choose_index
from unitscope_pipelines.indexing.scan import ScanPlan
from unitscope_pipelines.indexing.sealing.removed import once_removed
from unitscope_pipelines.indexing.sealing.version_images import known_ids, pending_files
from unitscope_pipelines.indexing.shards import Shard
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import read_manifest, read_measured, read_receipts
from unitscope_pipelines.storage.stores import Store, store_of
from unitscope_pipelines.storage.tombstones import removed_images
from unitscope_pipelines.vision.images.preprocessing import normalise
from unitscope_pipelines.vision.models.default_layers import measure_default
from unitscope_pipelines.vision.models.models import VisionModel, changed_code, choose_layers, load_model
from unitscope_pipelines.vision.receptive_fields.dead_leaves import dead_leaves
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.batch_dependence import find_batch_dependence
from unitscope_pipelines.vision.recording.embedding import cell_regions
from unitscope_schemas import tables
from unitscope_schemas.entries.model import Device, ModelEntry
from unitscope_schemas.errors import ModelError, UsageError, listing
from unitscope_schemas.manifest import Manifest, MeasuredLayers, Receipt, atlas_key
from unitscope_schemas.progress import Progress, Report
from unitscope_schemas.units import LayerSpec

_SHARD_FILES, _SHARDS_PER_WORKER = 1024, 4
"""Largest count of files in a shard, and least count of shards for a worker where the corpus is small, so that work is
even and progress can be seen."""


@dataclass(frozen=True)
class Plan:
    """What a run would do, decided before any of it is done."""

    config: IndexConfig
    scan: ScanPlan
    listing: Listing
    pending: LongTable
    """Rows of the listing that no finished shard has read in their present state."""
    finished: list[Receipt]
    """Receipts of the shards that need not be scanned."""
    previous: Manifest | None
    """Manifest of the present version, if one is sealed."""
    removed: pa.Table
    """Images that stay out, with the schema `tables.REMOVED`."""
    keep: int | None = None
    """Count of first ranks of each unit that are stored, None for all."""
    batch_dependence: str | None = None
    """How values depend on a picture's batch or on chance, in words, where that is allowed."""
    layer_notes: tuple[str, ...] = ()
    """What was left out of the default layers, and why."""

    @property
    def store(self) -> Store:
        """The store of the atlas that the run writes."""
        return self.scan.store

    @property
    def measured(self) -> MeasuredLayers:
        """What was found out of the model, for runs that resume."""
        return MeasuredLayers(
            atlas_key=self.scan.atlas_key,
            layers=list(self.scan.layers),
            batch_checked=True,
            batch_dependence=self.batch_dependence,
            layer_notes=self.layer_notes,
        )

    @property
    def lacks_peaks(self) -> bool:
        """Whether peaks of finished shards are gone, so that other images or ranks need their forwards again."""
        return any(not receipt.peaks for receipt in self.finished)

    @property
    def cells_per_image(self) -> int:
        """The count of units over all layers: rows that one image adds."""
        return sum(layer.units for layer in self.scan.layers)

    def shards(self, worker_count: int) -> Iterator[Shard]:
        """Yield the pending files in shards of the configured size, else of whole batches, several for each worker.

        On top of a bounded atlas they have other names than its own, whose files are never written to again.
        """
        bounded = self.previous.version if self.previous and self.previous.keep is not None else ""
        return cut_shards(self.pending, self._shard_size(worker_count), bounded)

    def shard_count(self, worker_count: int) -> int:
        """Return how many shards the pending files make."""
        return -(-len(self.pending) // self._shard_size(worker_count))

    def _shard_size(self, worker_count: int) -> int:
        batch = self.scan.batch_size
        even = -(-len(self.pending) // (_SHARDS_PER_WORKER * worker_count))
        return self.config.shard_size or min(_SHARD_FILES, max(1, -(-even // batch)) * batch)


def make_plan(config: IndexConfig, corpus: Listing, report: Report, store: Store | None = None) -> Plan:
    """Load the model, measure its layers and find out what is pending; writes nothing.

    To the named corpus come the others that the atlas has. The store is opened at the configured address unless it is
    open already.

    Raises UsageError if the atlas was made with another model, preprocessing, layers, precision, batch size or device,
    or would lose images that nobody asked to leave, ModelError where values depend on a picture's batch or on chance
    and that is not allowed, CapacityError if no index of so many patches fits the memory it may take.
    """
    report(Progress("plan", 0, 1, "model"))
    store = store or store_of(config.atlas)
    previous = read_manifest(store)
    corpus = corpora_of(corpus, previous, config)
    if previous is not None:
        check_listing(corpus, previous, store, config)
    model = load_model(config.model, config.weights, config.latents, config.trust_code)
    names = _named_as_before(_layer_names(config, model, previous), previous)
    device = device_kind(config, previous)

    def key_of(layer_names: list[str], batch: int) -> str:
        return atlas_key(model.entry, model.preprocessing, layer_names, config.precision, batch, device)

    size = batch_size(
        config, previous, model, device, lambda tried: read_measured(store, key_of(names, tried)) is not None
    )
    measured = _measured(config, model, names, store, partial(key_of, batch=size))
    names, key = [layer.name for layer in measured.layers], measured.atlas_key
    notes = tuple(previous.layer_notes) if previous else measured.layer_notes
    if previous is not None and previous.atlas_key != key:
        _refuse_other_atlas(previous, config, names, model.entry, device, size)
    layers, dependence = measured.layers, measured.batch_dependence
    if not measured.batch_checked:
        dependence = _batch_dependence(model, layers, size)
    if dependence and not config.allow_batch_dependence:
        _refuse_batch_dependence(dependence)
    finished = _with_bounded(read_receipts(store, key), previous)
    embed = _embed_layer(config, layers, previous, finished)
    scan = ScanPlan(
        corpus=corpus.root,
        store=store,
        atlas_key=key,
        model=model.entry,
        preprocessing=model.preprocessing,
        layers=tuple(layers),
        embed_layer=embed,
        batch_size=size,
        precision=config.precision,
        device=device,
        most_pixels=config.most_pixels,
        known_ids=known_ids(finished, store),
        trust_code=config.trust_code,
    )
    embedded = next(layer for layer in layers if layer.name == embed)
    choose_index(len(corpus.files) * len(cell_regions(embedded.grid)), embedded.units, config.patch_memory_bytes)
    return Plan(
        config=config,
        scan=scan,
        listing=corpus,
        pending=pending_files(corpus, finished, store),
        finished=finished,
        previous=previous,
        removed=once_removed(store) if previous is None else removed_images(previous, store),
        keep=config.rank_limit(previous.keep if previous else None),
        batch_dependence=dependence,
        layer_notes=notes,
    )


def _measured(
    config: IndexConfig, model: VisionModel, names: list[str], store: Store, key_of: Callable[[list[str]], str]
) -> MeasuredLayers:
    """Return the named layers, measured now unless an earlier run did; a default holds those that can be recorded."""
    key = key_of(names)
    if (measured := read_measured(store, key)) is not None:
        return measured
    if config.layers:
        return MeasuredLayers(atlas_key=key, layers=measure_layers(model.module, names, model.input_shape))
    layers, notes = measure_default(model, names)
    key = key_of([layer.name for layer in layers])
    return read_measured(store, key) or MeasuredLayers(atlas_key=key, layers=layers, layer_notes=notes)


def _layer_names(config: IndexConfig, model: VisionModel, previous: Manifest | None) -> list[str]:
    """Return the names of the layers to record: those asked for, else those of an atlas made by default, else the
    default of today."""
    if not config.layers and previous is not None and not previous.config.get("layers"):
        before = [entry.spec.name for entry in previous.layers]
        try:
            if choose_layers(model, before) == before:
                return before
        except UsageError:  # another network, which is refused later on
            pass
    return choose_layers(model, config.layers)


def scanned_again(plan: Plan, new: Sequence[Receipt] = ()) -> Plan:
    """Return the plan that runs the forwards of finished shards again whose peaks are gone, but not of `new` shards."""
    left = [receipt for receipt in plan.finished if receipt.peaks]
    done = [*left, *new]
    scan = replace(plan.scan, known_ids=known_ids(done, plan.store))
    return replace(plan, scan=scan, finished=left, pending=pending_files(plan.listing, done, plan.store))


def _named_as_before(names: list[str], previous: Manifest | None) -> list[str]:
    """Return the layers' names as the atlas has them, where it recorded the first output of each without saying so."""
    firsts = list(dict.fromkeys(re.sub("@out[0-9]+$", "", name) for name in names))
    before = [entry.spec.name for entry in previous.layers] if previous else []
    return firsts if firsts == before else names


def _batch_dependence(model: VisionModel, layers: Sequence[LayerSpec], batch_size: int) -> str | None:
    """Return in words how values depend on a picture's batch or on chance, None if they do not."""
    generator = np.random.default_rng(0)
    pictures = dead_leaves(4, model.input_shape, generator)
    noise = torch.from_numpy(generator.integers(0, 2, (1, *model.input_shape), np.uint8) * 255)
    pixels = [torch.zeros_like(noise), torch.full_like(noise, 255), noise]
    extremes = [normalise(one, model.preprocessing) for one in pixels]
    found = find_batch_dependence(model.module, layers, pictures, extremes, batch_size)
    return None if found is None else str(found)


def _refuse_batch_dependence(dependence: str) -> NoReturn:
    """Raise ModelError for values that are not the picture's own."""
    raise ModelError(
        f"{dependence}: what is recorded of a picture would not be its own; let the network use running statistics and "
        "no dropout in evaluation mode, or index with --allow-batch-dependence, which the manifest and the pages say"
    )


def _embed_layer(
    config: IndexConfig, layers: Sequence[LayerSpec], previous: Manifest | None, finished: list[Receipt]
) -> str:
    """Return the layer that is embedded: the configured one, else that of the atlas, else the last with places.

    Raises UsageError if it is not recorded, has no places, or is not the layer that the atlas or finished shards embed.
    """
    names, placed = [layer.name for layer in layers], [layer.name for layer in layers if layer.placed]
    embed = config.embed or (previous.embedding.layer if previous else [*names, *placed][-1])
    if embed not in names:
        raise UsageError(f"embedding layer {embed!r} is not recorded; recorded are {listing(names)}")
    if embed not in placed:
        raise UsageError(
            f"layer {embed!r} cannot be embedded: its tokens have no place in the picture; embed "
            + (f"one of {listing(placed)}" if placed else "another layer, which is to be recorded too")
        )
    if previous is not None and previous.embedding.layer != embed:
        raise UsageError(f"the atlas embeds {previous.embedding.layer!r}; use another directory to embed {embed!r}")
    if mixed := {receipt.embedded for receipt in finished} - {embed}:
        raise UsageError(
            f"finished shards of {config.atlas} embed {listing(mixed)}; use --embed with it or another directory"
        )
    return embed


def _with_bounded(receipts: list[Receipt], previous: Manifest | None) -> list[Receipt]:
    """Add the receipts of the bounded atlas whose peaks were deleted when it was sealed, in order of shards."""
    with_peaks = {receipt.shard for receipt in receipts}
    sealed = previous.shards if previous else []
    bounded = [receipt for receipt in sealed if not receipt.peaks and receipt.shard not in with_peaks]
    return sorted([*receipts, *bounded], key=lambda receipt: receipt.shard)


def cut_shards(files: LongTable, size: int, beside: str = "") -> Iterator[Shard]:
    """Cut files one by one into shards named by their content, so that a shard that runs again replaces itself.

    Shards that are named by `beside` too do not replace those that are not.
    """
    for part in files.pieces(size):
        listed = beside + json.dumps([part[name].to_pylist() for name in tables.FILE_KEY])
        yield Shard(hashlib.sha256(listed.encode()).hexdigest()[:16], part)


def _refuse_other_atlas(
    previous: Manifest, config: IndexConfig, names: list[str], model: ModelEntry, device: Device, size: int
) -> NoReturn:
    """Raise UsageError that says what differs, instead of replacing the one atlas that a directory holds."""
    before, changed = [entry.spec.name for entry in previous.layers], changed_code(previous.model, model)
    differences = [
        text
        for differs, text in (
            (
                previous.model.weights_digest != model.weights_digest,
                f"weights of {previous.model.spec} ({previous.model.weights})",
            ),
            (bool(changed), f"other code of {listing(changed)}"),
            (before != names, f"layers {listing(before)}"),
            (previous.precision != config.precision, f"precision {previous.precision}"),
            (previous.batch_size != size, f"batch size {previous.batch_size}"),
            (previous.device != device, f"values of another device, {previous.device}"),
        )
        if differs
    ] or ["other preprocessing"]
    raise UsageError(
        f"{config.atlas} is an atlas of {'; '.join(differences)}; repeat those options, or name another directory"
    )
