"""The tables of images of a version: of each segment its own, which stay where nothing changed, and their groups."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import is_present, read_part, write_atomically, write_long_table, write_table
from unitscope_pipelines.storage.segments.lookup import lookup_files, lookup_rows
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import ImageTables, Segment

_OF_GROUPS = ["image", "image_id", "duplicate_group"]


def write_image_tables(store: Store, segment: str, version: str, rows: LongTable) -> ImageTables:
    """Write some rows of `tables.IMAGES`, in order of ids, as the images of a segment.

    Memory holds the columns that answers look up, some 350 bytes for each image.
    """
    return ImageTables(
        images=write_long_table(store, layout.segment_images(segment, version), rows, tables.SEGMENT_IMAGES.names),
        lookup=_write_arrow(store, layout.lookup_images(segment, version), lookup_rows(rows)),
        files=_write_arrow(store, layout.lookup_files(segment, version), lookup_files(rows)),
    )


def renewed_image_tables(
    store: Store, segment: Segment, version: str, rows: LongTable, sizes: Mapping[str, int]
) -> ImageTables:
    """Return the tables of a segment that stays: those that it has if they say the same, else new ones.

    `sizes`: the bytes of every file of the atlas.
    """
    before = segment.tables
    parts = (before.images, before.lookup, before.files)
    is_there = all(part is not None and is_present(sizes, part) for part in parts)
    if is_there and _says(store, before.images, rows):
        return before
    return write_image_tables(store, segment.name, version, rows)


def _says(store: Store, images: Part, rows: LongTable) -> bool:
    """Tell whether a table of images has these rows, column by column."""
    names = tables.SEGMENT_IMAGES.names
    with store.hold(images) as file:
        same = pq.read_schema(file).names == names
    return same and all(read_part(store, images, [name])[name].equals(rows[name]) for name in names)


def write_groups(store: Store, version: str, images: LongTable) -> Part:
    """Write the groups of near duplicates of `tables.IMAGES`."""
    return write_table(store, layout.groups(version), group_rows(images.batches(_OF_GROUPS)))


def group_rows(images: Iterable[pa.RecordBatch]) -> pa.Table:
    """Return the groups of near duplicates of `tables.IMAGES` with the schema `tables.GROUPS`."""
    grouped = [batch.select(_OF_GROUPS).filter(pc.is_valid(batch["duplicate_group"])) for batch in images]
    members = pa.Table.from_batches(grouped, pa.schema([tables.IMAGES.field(name) for name in _OF_GROUPS]))
    first = pc.index_in(members["duplicate_group"], value_set=members["image_id"].combine_chunks())
    first = members["image"].take(first)
    return pa.table([members["image"], first, members["duplicate_group"]], schema=tables.GROUPS).combine_chunks()


def _write_arrow(store: Store, path: str, rows: pa.RecordBatch) -> Part:
    def write(file: Path) -> None:
        with pa.OSFile(os.fspath(file), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_batch(rows)

    return write_atomically(store, path, write, rows.num_rows)
