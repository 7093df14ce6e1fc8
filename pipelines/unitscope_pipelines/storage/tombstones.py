"""Images that were taken out by hand: which they are, and which are left."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.segments.images import tables_of_segments, version_images
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import tables
from unitscope_schemas.manifest import Manifest


def removed_images(manifest: Manifest, store: Store) -> pa.Table:
    """Read the images that were removed from a version, in order of ids, with the schema `tables.REMOVED`."""
    removed = manifest.removed
    return tables.REMOVED.empty_table() if removed is None else read_part(store, removed.table)


def without(images: pa.Table, removed: pa.Table) -> pa.Table:
    """Return the rows of images or files whose image is not among the removed."""
    if removed.num_rows == 0:
        return images
    return images.filter(pc.invert(pc.is_in(images["image_id"], value_set=removed["image_id"].combine_chunks())))


def present_images(manifest: Manifest, store: Store) -> pa.Table:
    """Read the images of a version that are no tombstones, with the numbers that they have in it."""
    return without(version_images(manifest, store), removed_images(manifest, store))


def present_tables(manifest: Manifest, store: Store, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield columns of `tables.IMAGES` of the images that are no tombstones, segment by segment."""
    removed = removed_images(manifest, store)
    for images in tables_of_segments(store, manifest.segments, ["image_id", *columns]):
        yield without(images, removed).select(list(columns))
