"""Taking images out of a sealed atlas, bringing them back, and making an earlier version the present one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.indexing.sealing.removed import Outline, outline, write_removed
from unitscope_pipelines.indexing.sealing.versions import complete_version, present_version, seal
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import AtlasAddress, Store, store_of
from unitscope_pipelines.storage.tombstones import present_images, removed_images
from unitscope_schemas import tables
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.manifest import Manifest, Removed
from unitscope_schemas.versions import read_version


@dataclass(frozen=True)
class NamedImage:
    """An image by its id, and its path below the corpus root."""

    image_id: str
    path: str


@dataclass(frozen=True)
class Removal:
    """What a removal or restoration changed, or would change."""

    images: list[NamedImage]
    version: str
    image_count: int
    """Count of the images that answers show now."""
    stale_count: int
    """Count of the removed images that ranks, percentiles and statistics count until the atlas is compacted."""
    waiting: list[NamedImage]
    """Restored images that are not in this version's tables: they come back with the next index run."""


def remove(atlas: AtlasAddress | Store, references: Sequence[str], dry_run: bool = False) -> Removal:
    """Take images out of every answer at once, by id, beginning of an id or path; all of an image's copies go.

    Seals a version that reads the same tables with tombstones, and never touches the corpus. Later index runs leave
    the images out; what scans recorded of them stays in the atlas, so that they can come back without a forward. Costs
    a read of the images table, whatever the number of units. Raises NotFoundError and UsageError.
    """
    store = store_of(atlas)
    with store.locked():
        manifest = present_version(store)
        images = present_images(manifest, store)
        rows = _rows_of(images, references, f"among the {images.num_rows} images of this atlas")
        if len(rows) == images.num_rows:
            raise UsageError("that would remove every image of this atlas; delete its directory instead")
        changed = images.take(pa.array(rows)).select(["image_id", "path"])
        changed = changed.append_column("removed", pa.array([_now()] * changed.num_rows)).cast(tables.REMOVED)
        removed = pa.concat_tables([removed_images(manifest, store), changed]).sort_by("image_id")
        return _seal_without(removed, manifest, store, changed, dry_run)


def restore(atlas: AtlasAddress | Store, references: Sequence[str], dry_run: bool = False) -> Removal:
    """Bring removed images back, at the cost of `remove`; those that are no tombstones come with the next index run."""
    store = store_of(atlas)
    with store.locked():
        manifest = present_version(store)
        removed = removed_images(manifest, store)
        rows = _rows_of(removed, references, f"among the {removed.num_rows} that were removed from this atlas")
        stays = np.ones(removed.num_rows, bool)
        stays[rows] = False
        changed = removed.take(pa.array(rows))
        return _seal_without(removed.filter(pa.array(stays)), manifest, store, changed, dry_run)


@dataclass(frozen=True)
class Reversion:
    """The version that became the present one, or would, and the one that was."""

    version: str
    before: str
    image_count: int
    """Count of the images that answers show then."""
    stale_count: int
    """Count of the removed images that the version's tables still hold."""


def revert(atlas: AtlasAddress | Store, version: str, dry_run: bool = False) -> Reversion:
    """Make an earlier version the present one again, by its name or the beginning of it; the present one stays beside.

    Images that were removed by hand stay out. The next index run compares the corpus with this version, so it refuses
    what a run refused or replaced before. Raises NotFoundError for a version that is not there, or not whole.
    """
    store = store_of(atlas)
    with store.locked():
        present = present_version(store)
        earlier = read_version(store, version)
        if earlier.version != present.version and complete_version(store, earlier.version) is None:
            raise NotFoundError(f"parts of version {earlier.version} of {store.address} were deleted; index again")
        removed = removed_images(present, store)
        after = outline(earlier, store, removed)
        if not dry_run and after.version != present.version:
            _seal_tables(earlier, removed, after, store)
        return Reversion(after.version, present.version, after.corpus.image_count, after.stale)


def _seal_without(removed: pa.Table, manifest: Manifest, store: Store, changed: pa.Table, dry_run: bool) -> Removal:
    """Seal the same tables with the removed images out, of which `changed` came or went just now."""
    after = outline(manifest, store, removed)
    stored_ids = version_images(manifest, store, ["image_id"])["image_id"].combine_chunks()
    waiting = changed.filter(pc.invert(pc.is_in(changed["image_id"], value_set=stored_ids)))
    if not dry_run:
        _seal_tables(manifest, removed, after, store)
    return Removal(
        images=_named(changed),
        version=after.version,
        image_count=after.corpus.image_count,
        stale_count=after.stale,
        waiting=_named(waiting),
    )


def _seal_tables(manifest: Manifest, removed: pa.Table, after: Outline, store: Store) -> None:
    """Seal the tables of a version anew, with the removed images out."""
    entry = None
    if removed.num_rows:
        entry = Removed(table=write_removed(store, removed), stale=after.stale, built=manifest.built)
    update = {
        "version": after.version,
        "corpus": after.corpus,
        "removed": entry,
        "created": _now(),
        "forward_count": 0,
        "left": None,
    }
    seal(store, manifest.model_copy(update=update))


def _named(images: pa.Table) -> list[NamedImage]:
    return [NamedImage(**row) for row in images.select(["image_id", "path"]).to_pylist()]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _rows_of(images: pa.Table, references: Sequence[str], where: str) -> list[int]:
    """Return the rows of the images that are meant, each once, in ascending order."""
    names, rows = [images[name].combine_chunks() for name in ("image_id", "path")], [np.arange(images.num_rows)] * 2
    if "other_paths" in images.column_names:
        others = images["other_paths"].combine_chunks()
        names.append(pc.list_flatten(others))
        rows.append(pc.list_parent_indices(others).to_numpy())
    known = pa.concat_arrays(names)
    positions = pc.index_in(pa.array(references, pa.string()), value_set=known).to_pylist()
    row_of = np.concatenate(rows)
    meant = [
        _row_beginning(images["image_id"], reference, where) if position is None else int(row_of[position])
        for reference, position in zip(references, positions, strict=True)
    ]
    return sorted(set(meant))


def _row_beginning(ids: pa.ChunkedArray, reference: str, where: str) -> int:
    """Return the only row whose id begins with a reference; raises NotFoundError, or UsageError if several do."""
    begins = pc.starts_with(ids, reference.lower()).to_numpy() & (len(reference) >= tables.LEAST_ID_DIGITS)
    rows = np.flatnonzero(begins)
    if len(rows) > 1:
        raise UsageError(f"several images begin with {reference!r}; give more digits")
    if not len(rows):
        raise NotFoundError(
            f"image {reference!r} is not {where}; give its id, at least {tables.LEAST_ID_DIGITS} first digits of it, "
            "or its path below the corpus root"
        )
    return int(rows[0])
