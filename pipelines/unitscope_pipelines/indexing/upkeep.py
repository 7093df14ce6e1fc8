"""Taking images out of a sealed atlas, bringing them back, and rebuilding its tables without them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines import cluster
from unitscope_pipelines.corpora.listing import Listing
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import commit
from unitscope_pipelines.indexing.plan import Plan
from unitscope_pipelines.indexing.removed import outlined, present, write_removed
from unitscope_pipelines.indexing.verify import scan_plan
from unitscope_pipelines.indexing.versions import present_version, seal
from unitscope_pipelines.storage.parts import locked, read_part, remove_unfinished
from unitscope_pipelines.storage.stores import Root, absolute
from unitscope_pipelines.storage.tombstones import present_images, removed_images
from unitscope_schemas import tables
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.manifest import Manifest, Removed
from unitscope_schemas.progress import Report


@dataclass(frozen=True)
class NamedImage:
    image_id: str
    path: str


@dataclass(frozen=True)
class Removal:
    """What a removal or restoration changed, or would change."""

    images: list[NamedImage]
    version: str
    image_count: int
    """Images that answers show now."""
    stale_count: int
    """Removed images that ranks, percentiles and statistics count until the atlas is compacted."""
    waiting: list[NamedImage]
    """Restored images that are not in this version's tables: they come back with the next index run."""


def remove(atlas: Root, references: Sequence[str], dry_run: bool = False) -> Removal:
    """Take images out of every answer at once, by id, beginning of an id or path; all of an image's copies go.

    Seals a version that reads the same tables with tombstones, and never touches the corpus. Later index runs leave
    the images out; what scans found of them stays in the atlas, so that they can come back without a forward. Costs
    a read of the images table, whatever the number of units. Raises NotFoundError and UsageError.
    """
    with locked(atlas):
        manifest = present_version(atlas)
        images = present_images(manifest, atlas)
        rows = _rows_of(images, references, f"among the {images.num_rows} images of this atlas")
        if len(rows) == images.num_rows:
            raise UsageError("that would remove every image of this atlas; delete its directory instead")
        chosen = images.take(pa.array(rows)).select(["image_id", "path"])
        chosen = chosen.append_column("removed", pa.array([_now()] * chosen.num_rows)).cast(tables.REMOVED)
        removed = pa.concat_tables([removed_images(manifest, atlas), chosen]).sort_by("image_id")
        return _sealed(manifest, atlas, removed, chosen, dry_run)


def restore(atlas: Root, references: Sequence[str], dry_run: bool = False) -> Removal:
    """Bring removed images back, at the cost of `remove`; those that are no tombstones come with the next index run."""
    with locked(atlas):
        manifest = present_version(atlas)
        removed = removed_images(manifest, atlas)
        rows = _rows_of(removed, references, f"among the {removed.num_rows} that were removed from this atlas")
        stays = np.ones(removed.num_rows, bool)
        stays[rows] = False
        return _sealed(manifest, atlas, removed.filter(pa.array(stays)), removed.take(pa.array(rows)), dry_run)


def compact(atlas: Root, workers: int | None, report: Report) -> Manifest:
    """Seal a version whose tables hold no removed image: the rows of a fresh index of the others, without a forward.

    Rebuilds ranks, statistics, the hot database, vectors and patch index: what an index run costs after its scan. What
    shards hold about removed images stays, so that they can come back. Without tombstones nothing is done. Raises
    UsageError for a bounded atlas, whose peaks are gone.
    """
    with locked(atlas):
        manifest = present_version(atlas)
        if not manifest.stale_count:
            return manifest
        if manifest.keep is not None:
            raise UsageError(
                f"{atlas} keeps the first {manifest.keep} ranks of each unit and no peaks, so ranks and statistics "
                "cannot be made anew without the removed images; they stay out of every answer, and the next index "
                "run that finds the corpus changed counts them no more"
            )
        remove_unfinished(atlas)
        nothing = tables.LISTED.empty_table()
        plan = Plan(
            config=IndexConfig.model_validate(manifest.config),
            scan=scan_plan(manifest, absolute(atlas), manifest.corpus.root),
            listing=Listing(manifest.corpus.root, nothing, manifest.corpus.ignored_count),
            pending=nothing,
            finished=manifest.shards,
            previous=manifest,
        )
        found = present(manifest, atlas)
        with cluster.connected(None):
            return commit(plan, found, manifest.shards, cluster.resources(workers, "cpu"), report)


def _sealed(manifest: Manifest, atlas: Root, removed: pa.Table, chosen: pa.Table, dry_run: bool) -> Removal:
    """Seal the same tables with these images out, of which some were chosen just now."""
    outline = outlined(manifest, atlas, removed)
    held = read_part(atlas, manifest.images, ["image_id"])["image_id"].combine_chunks()
    waiting = chosen.filter(pc.invert(pc.is_in(chosen["image_id"], value_set=held)))
    if not dry_run:
        entry = None
        if removed.num_rows:
            entry = Removed(table=write_removed(atlas, removed), stale=outline.stale, built=manifest.built)
        changed = {
            "version": outline.version,
            "corpus": outline.corpus,
            "removed": entry,
            "created": _now(),
            "forward_count": 0,
        }
        seal(atlas, manifest.model_copy(update=changed))
    return Removal(_named(chosen), outline.version, outline.corpus.image_count, outline.stale, _named(waiting))


def _named(images: pa.Table) -> list[NamedImage]:
    return [NamedImage(row["image_id"], row["path"]) for row in images.select(["image_id", "path"]).to_pylist()]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _rows_of(images: pa.Table, references: Sequence[str], where: str) -> list[int]:
    """Rows of the images that are meant, each once."""
    names, rows = [images[name].combine_chunks() for name in ("image_id", "path")], [np.arange(images.num_rows)] * 2
    if "other_paths" in images.column_names:
        others = images["other_paths"].combine_chunks()
        names.append(pc.list_flatten(others))
        rows.append(pc.list_parent_indices(others).to_numpy())
    known = pa.concat_arrays(names)
    found = pc.index_in(pa.array(references, pa.string()), value_set=known).to_pylist()
    row_of = np.concatenate(rows)
    chosen = [
        _row_beginning(images["image_id"], reference, where) if place is None else int(row_of[place])
        for reference, place in zip(references, found, strict=True)
    ]
    return sorted(set(chosen))


def _row_beginning(ids: pa.ChunkedArray, reference: str, where: str) -> int:
    """The only row whose id begins so."""
    begins = pc.starts_with(ids, reference).to_numpy() & (len(reference) >= tables.LEAST_ID_DIGITS)
    rows = np.flatnonzero(begins)
    if len(rows) > 1:
        raise UsageError(f"several images begin with {reference!r}; give more digits")
    if not len(rows):
        raise NotFoundError(
            f"image {reference!r} is not {where}; give its id, at least {tables.LEAST_ID_DIGITS} first digits of it, "
            "or its path below the corpus root"
        )
    return int(rows[0])
