"""The main job: plan, scan what is pending, rank, embed, seal."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from unitscope_pipelines.cluster.resources import Resources, resources
from unitscope_pipelines.cluster.session import connected
from unitscope_pipelines.cluster.workers import each
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.corpora.roots import roots_of
from unitscope_pipelines.indexing.building import VersionBuilder, with_fields
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.departures import left_images
from unitscope_pipelines.indexing.plan import Plan, make_plan, scanned_again
from unitscope_pipelines.indexing.ranking.layers import OnWorkers
from unitscope_pipelines.indexing.ranking.unit_fields import (
    RankedVersion,
)
from unitscope_pipelines.indexing.run_entry import run_entry
from unitscope_pipelines.indexing.scan import Scanner
from unitscope_pipelines.indexing.sealing.removed import remaining_images
from unitscope_pipelines.indexing.sealing.segments import Segmentation, segmentation
from unitscope_pipelines.indexing.sealing.version_images import version_images
from unitscope_pipelines.indexing.sealing.versions import (
    NewVersion,
    complete_version,
    remove_ranked_peaks,
    seal,
    version_name,
)
from unitscope_pipelines.storage.parts import read_measured, remove_unfinished, write_model
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout
from unitscope_schemas.entries.corpus import LeftImages
from unitscope_schemas.manifest import Manifest, Receipt
from unitscope_schemas.progress import Progress, Report, Stage

_SLOW_HALF = "{} is meant for GPUs: on most CPUs fp32 is faster, and exact"


def index(config: IndexConfig, report: Report) -> Manifest:
    """Bring the atlas up to date with the corpus and return its sealed manifest.

    Finished shards of an earlier, killed run are kept; files that were added since the last version cost their
    own forwards only; a run with nothing to do changes nothing. Images that were removed by hand stay out: a run that
    has anything to do leaves no tombstone, one with nothing to do keeps them. Without a manifest every image stays out
    that was ever removed and whose table `gc` has not deleted.

    A run that would take more than a few images out of the atlas, or one of its corpora, raises UsageError unless
    `replace` is set; the version that has them stays the present one, and finished shards are kept.

    A bounded atlas (`keep`) holds the first ranks of each unit and no peaks. To grow or to keep other ranks it needs
    the forwards of all files again, and says so: merging could keep first ranks exact, but not quantiles.
    """
    store = store_of(config.atlas)
    corpus = list_corpus(config.corpus, config.limit, config.columns)
    with store.locked():
        remove_unfinished(store)
        remove_ranked_peaks(store)
        plan = make_plan(config, corpus, report, store)
        if read_measured(store, plan.scan.atlas_key) != plan.measured:
            write_model(store, layout.measured(plan.scan.atlas_key), plan.measured)
        version = None if len(plan.pending) else _next_version(plan, plan.finished)
        if version is not None and (unchanged := _unchanged(plan, version)) is not None:
            return _as_asked(plan, unchanged, report)
        left = None if version is None else _left(plan, version)
        with connected(config.address):
            workers = resources(config.workers, plan.scan.device)
            new = _scan(plan, workers, report)
            if version is None:
                version = _next_version(plan, [*plan.finished, *new])
                if (unchanged := _unchanged(plan, version)) is not None:
                    return _as_asked(plan, unchanged, report)
                left = _left(plan, version)
            if plan.lacks_peaks and not (_segmentation(plan, version).is_same or complete_version(store, version.name)):
                plan = _scan_all_again(plan, new, report)
                again = _scan(plan, workers, report, "again")
                version = _next_version(plan, [*plan.finished, *new, *again])
            manifest = commit(plan, version, OnWorkers(workers, report), left)
        remove_unfinished(store)
        remove_ranked_peaks(store)
        return manifest


def expected(plan: Plan) -> Plan:
    """Return the plan with all that its run will scan, as far as can be known before it has read what is new."""
    if not plan.lacks_peaks:
        return plan
    if not len(plan.pending) and _unchanged(plan, _next_version(plan, plan.finished)) is not None:
        return plan
    return scanned_again(plan)


def _next_version(plan: Plan, receipts: Iterable[Receipt]) -> NewVersion:
    """Return the version that these shards and the plan's listing make."""
    receipts = list(receipts)
    images = version_images(plan.listing, receipts, plan.store, plan.removed)
    return NewVersion.of(plan.scan.atlas_key, plan.keep, images, receipts)


def _unchanged(plan: Plan, version: NewVersion) -> Manifest | None:
    """Return the present version if it shows the images and skipped files of the new one, tombstones or not."""
    previous = plan.previous
    if previous is None:
        return None
    shown = previous.version
    if previous.stale_count:
        shown = version_name(previous.atlas_key, previous.keep, remaining_images(previous, plan.store))
    return previous if shown == version.name else None


def _as_asked(plan: Plan, unchanged: Manifest, report: Report) -> Manifest:
    """Return a version whose images are all there; it is sealed anew where its corpora lie elsewhere now, or where
    effective boxes are asked for on another count of exemplars."""
    changed: dict[str, Any] = {}
    if roots_of(unchanged) != plan.listing.roots:
        corpus = unchanged.corpus.model_copy(update={"root": plan.listing.root, "roots": plan.listing.roots})
        changed |= {"corpus": corpus, "left": None}
    asked = plan.config.field_exemplars
    if asked is not None and any(entry.field_exemplars != asked for entry in unchanged.layers):
        with connected(plan.config.address):
            workers = resources(plan.config.workers, plan.scan.device)
            changed["layers"] = with_fields(plan, RankedVersion.of(unchanged, plan.store), OnWorkers(workers, report))
    return seal(plan.store, unchanged.model_copy(update=changed)) if changed else unchanged


def _left(plan: Plan, version: NewVersion) -> LeftImages | None:
    """Return the images that leave with a version; raises UsageError if they may not."""
    previous = plan.previous
    return None if previous is None else left_images(previous, plan.store, version.images, plan.config)


def _scan_all_again(plan: Plan, new: list[Receipt], report: Report) -> Plan:
    """Return the plan that scans again what a bounded atlas no longer has the peaks of, and say so."""
    again = scanned_again(plan, new)
    note = (
        f"the atlas kept first ranks alone, and no peaks: {len(again.pending)} files are scanned again, for ranks and "
        "quantiles to be those of all pictures"
    )
    report(Progress("again", 0, len(again.pending), "files", note=note))
    return again


def _scan(plan: Plan, workers: Resources, report: Report, stage: Stage = "scan") -> list[Receipt]:
    """Scan the pending files on all workers, and return the receipts of their shards as they came."""
    shards = plan.shards(workers.slots)
    nodes = Counter[str]()
    skipped = rows = 0
    precision = plan.scan.precision
    note = _SLOW_HALF.format(precision) if precision != "fp32" and not workers.gpus else ""
    report(Progress(stage, 0, len(plan.pending), "files", note=note))
    receipts = []
    scan = replace(plan.scan, decoder_count=workers.decoder_count)
    # On CPUs all of it shares the worker's core, and forwards are a third slower on any thread but the first: glibc
    # gives back to the system what such a thread frees.
    for done in each(partial(Scanner, scan), shards, workers, overlaps=workers.gpus > 0):
        receipt = done.result
        receipts.append(receipt)
        nodes[done.node] += receipt.files.rows + receipt.skipped.rows
        skipped += receipt.skipped.rows
        rows += sum(part.rows for part in receipt.peaks.values())
        report(Progress(stage, nodes.total(), len(plan.pending), "files", dict(nodes), skipped, rows))
    return receipts


def commit(
    plan: Plan,
    version: NewVersion,
    run: OnWorkers,
    left: LeftImages | None = None,
    measures: bool = True,
    merge: bool = False,
) -> Manifest:
    """Write everything the version needs beside what earlier ones use, and the manifest last.

    A version that was sealed before and is still there becomes the present one again as it is; segments of the present
    one whose images are all in a new one are taken over. `left`: the images of the present one that it does not have.
    Without `measures` units keep the effective boxes of the present one. `merge`: in as few segments as may be.
    """
    earlier = None if merge else complete_version(plan.store, version.name)
    if earlier is None:
        builder = VersionBuilder(plan, version, _segmentation(plan, version, merge), run)
        return seal(plan.store, builder.build(measures).model_copy(update={"left": left}))
    changed = (
        run_entry(plan, version)._asdict() | {"left": left} | ({"shards": earlier.shards} if plan.lacks_peaks else {})
    )
    return seal(plan.store, earlier.model_copy(update=changed))


def _segmentation(plan: Plan, version: NewVersion, merge: bool = False) -> Segmentation:
    """Return which segments of the present version a new one takes over."""
    return segmentation(plan.previous, plan.store, version, plan.keep, plan.config.segment_images, merge)
