"""Rebuilding the tables of an atlas without removed images, in as few segments as may be."""

from unitscope_pipelines.cluster.resources import resources
from unitscope_pipelines.cluster.session import connected
from unitscope_pipelines.corpora.listing import Listing
from unitscope_pipelines.corpora.roots import roots_of
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import commit
from unitscope_pipelines.indexing.plan import Plan
from unitscope_pipelines.indexing.ranking.layers import OnWorkers
from unitscope_pipelines.indexing.sealing.removed import remaining_images
from unitscope_pipelines.indexing.sealing.segments import fewest
from unitscope_pipelines.indexing.sealing.versions import NewVersion, present_version
from unitscope_pipelines.indexing.verification.forwards import scan_plan
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import remove_unfinished
from unitscope_pipelines.storage.stores import AtlasAddress, Store, store_of
from unitscope_pipelines.storage.tombstones import removed_images
from unitscope_schemas import tables
from unitscope_schemas.errors import UsageError
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.progress import Report


def compact(atlas: AtlasAddress | Store, workers: int | None, report: Report) -> Manifest:
    """Seal a version of as few segments as may be, without removed images: a fresh index, but for the forwards.

    Rebuilds ranks, statistics, lookup files, vectors and patch index: what an index run costs after its scan. Effective
    boxes of units stay as they are, measured on exemplars that may have been removed. What shards hold about removed
    images stays, so that they can come back. A version that holds no tombstone, and no more segments than the limit of
    the atlas's settings asks for, is left as it is. Raises UsageError for a bounded atlas, whose peaks are gone.
    """
    store = store_of(atlas)
    with store.locked():
        manifest = present_version(store)
        config = IndexConfig.model_validate(manifest.config)
        least = fewest(manifest.stored_count, config.segment_images)
        if not manifest.stale_count and len(manifest.segments) <= least:
            return manifest
        if manifest.keep is not None:
            raise UsageError(
                f"{store.address} keeps the first {manifest.keep} ranks of each unit and no peaks, so ranks and "
                "statistics cannot be made anew without the removed images; they stay out of every answer, and the "
                "next index run that finds the corpus changed counts them no more"
            )
        remove_unfinished(store)
        nothing = LongTable.of(tables.LISTED.empty_table())
        plan = Plan(
            config=config,
            scan=scan_plan(manifest, store, manifest.corpus.root),
            listing=Listing(
                manifest.corpus.root,
                nothing,
                tables.SKIPPED.empty_table(),
                manifest.corpus.all_others,
                repeated_count=manifest.corpus.repeated_count,
                roots=roots_of(manifest),
            ),
            pending=nothing,
            finished=manifest.shards,
            previous=manifest,
            removed=removed_images(manifest, store),
        )
        images = remaining_images(manifest, store)
        version = NewVersion.of(manifest.atlas_key, plan.keep, images, manifest.shards)
        with connected(None):
            run = OnWorkers(resources(workers, "cpu"), report)
            return commit(plan, version, run, measures=False, merge=True)
