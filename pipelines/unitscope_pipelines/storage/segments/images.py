"""The images of a version and of its segments, by number and by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.segments.ranked_rows import read_numbers
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import Segment
from unitscope_schemas.manifest import Manifest, Receipt

_FROM_LABEL = ("labels", "statements")
"""Columns that older atlases do not have: what they say follows from `label`."""


@dataclass(frozen=True)
class SegmentImages:
    """The images of a segment by row, and the shards that recorded them: what it is ranked and embedded of."""

    store: Store
    name: str
    images: Part
    receipts: tuple[Receipt, ...]

    @property
    def count(self) -> int:
        """The count of the segment's images."""
        return self.images.rows

    def read(self, columns: list[str]) -> pa.Table:
        """Return columns of the images."""
        return read_part(self.store, self.images, columns)


def version_images(manifest: Manifest, store: Store, columns: Sequence[str] = tuple(tables.IMAGES.names)) -> pa.Table:
    """Return columns of `tables.IMAGES` of all images of a version in order of their numbers, tombstones too."""
    return images_of_segments(store, manifest.segments, manifest.groups, columns)


def images_of_segments(
    store: Store, segments: Sequence[Segment], groups: Part | None, columns: Sequence[str]
) -> pa.Table:
    """Return columns of `tables.IMAGES` of the images of all segments in order of their numbers.

    `groups`: the table of the groups of near duplicates, None where the images tables tell them. All columns take some
    400 bytes of memory for each image.
    """
    images = pa.concat_tables(tables_of_segments(store, segments, columns))
    if len(segments) > 1:
        numbers = [numbers for segment in segments if (numbers := read_numbers(store, segment)) is not None]
        images = images.take(pa.array(np.argsort(np.concatenate(numbers))))
    if "image" in columns:
        images = _with(images, "image", pa.array(np.arange(images.num_rows, dtype=np.int32)))
    if "duplicate_group" in columns and groups is not None:
        images = _with(images, "duplicate_group", group_names(read_part(store, groups), images.num_rows))
    return images.select(list(columns))


def tables_of_segments(store: Store, segments: Sequence[Segment], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield columns of `tables.IMAGES` of the images of each segment, which follow from no other segment."""
    for segment in segments:
        yield _read(store, segment.tables.images, columns)


def group_names(groups: pa.Table, image_count: int) -> pa.Array:
    """Return the group of each image by its number, null where it has none; `groups` has `tables.GROUPS`."""
    places = np.full(image_count, -1, np.int32)
    places[groups["image"].to_numpy()] = np.arange(groups.num_rows)
    return groups["duplicate_group"].combine_chunks().take(pa.array(places, mask=places < 0))


def _read(store: Store, part: Part, columns: Sequence[str]) -> pa.Table:
    """Read the columns that a table has; of older atlases those too that follow from others, or are not known."""
    with store.hold(part) as path:
        stored = pq.read_schema(path).names
    images = read_part(store, part, [name for name in dict.fromkeys(["label", *columns]) if name in stored])
    if any(name in columns for name in _FROM_LABEL):
        images = tables.with_labels(images)
    images = tables.completed(images, pa.schema([tables.IMAGES.field(name) for name in columns]))
    return images.select([name for name in images.column_names if name in columns and name != "image"])


def _with(images: pa.Table, name: str, values: pa.Array) -> pa.Table:
    field = tables.IMAGES.field(name)
    at = images.schema.get_field_index(name)
    return images.append_column(field, values) if at < 0 else images.set_column(at, field, values)
