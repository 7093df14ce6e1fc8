"""What answers look up: first ranks and names in DuckDB files, images by number in a memory-mapped Arrow file."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.storage.parts import read_part, write_atomically
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout, tables
from unitscope_schemas.addresses import as_text
from unitscope_schemas.manifest import LayerEntry, Lookup, Part

_LARGEST = 2**63


def build_lookup(store: Store, version: str, images: Part, ranks: Part) -> Lookup:
    """Write what a version's answers look up beside the first ranks; rebuildable from the images at any time."""

    def write_names(file: Path) -> None:
        write_database(file, store, images)

    def write_rows(file: Path) -> None:
        rows = image_rows(read_part(store, images))
        with pa.OSFile(os.fspath(file), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_batch(rows)

    return Lookup(
        database=write_atomically(store, layout.lookup(version), write_names, images.rows),
        images=write_atomically(store, layout.lookup_images(version), write_rows, images.rows),
        ranks=ranks,
    )


def build_first_ranks(store: Store, version: str, layers: Sequence[LayerEntry]) -> Part:
    """Write the first ranks of a version's units; rebuildable from the ranked tables at any time."""
    rows = sum(entry.spec.units for entry in layers)
    path = layout.lookup_ranks(version)
    return write_atomically(store, path, lambda file: write_database(file, store, layers=layers), rows)


def write_database(file: Path, store: Store, images: Part | None = None, layers: Sequence[LayerEntry] = ()) -> None:
    """Write a DuckDB file of the labels and files of images, and of the first ranks of layers, where they are given."""
    with duckdb.connect(os.fspath(file)) as database:
        if images is not None:
            with store.hold(images) as source:
                _write_names(database, source)
        if layers:
            _write_first_ranks(database, store, layers)
        database.execute("CHECKPOINT")


def _write_names(database: duckdb.DuckDBPyConnection, images: Path) -> None:
    """Write the labels with their counts, and the number of the image that each file is."""
    database.execute(
        "CREATE TABLE labels AS SELECT label, count(*) AS image_count "
        "FROM (SELECT unnest(labels) AS label FROM read_parquet(?)) GROUP BY label ORDER BY label",
        [str(images)],
    )
    database.execute(
        "CREATE TABLE files AS SELECT path, image FROM read_parquet($1) "
        "UNION ALL SELECT unnest(other_paths), image FROM read_parquet($1) ORDER BY path",
        [str(images)],
    )
    database.execute("CREATE UNIQUE INDEX files_by_path ON files (path)")


def _write_first_ranks(database: duckdb.DuckDBPyConnection, store: Store, layers: Sequence[LayerEntry]) -> None:
    """Write first ranks layer by layer, unit by unit, in rank order: answers find a unit's by the numbers of rows."""
    database.execute(
        "CREATE TABLE first_ranks (layer INTEGER, unit INTEGER, rank INTEGER, image INTEGER, "
        "activation FLOAT, row SMALLINT, col SMALLINT)"
    )
    for position, entry in enumerate(layers):
        for part in entry.ranked:
            with store.hold(part) as ranked:
                database.execute(
                    "INSERT INTO first_ranks SELECT ?, unit, rank, image, activation, row, col "
                    "FROM read_parquet(?) WHERE rank < ? ORDER BY unit, rank",
                    [position, str(ranked), tables.FIRST_RANKS],
                )


def image_rows(images: pa.Table) -> pa.RecordBatch:
    """Return the images with numbers for labels and groups in one batch: taking rows of several copies columns."""
    columns = {name: images[name].combine_chunks() for name in images.column_names}
    labels = columns["labels"]
    names = pc.unique(labels.flatten()).sort()
    columns["label"] = pc.index_in(columns["label"], value_set=names).fill_null(-1)
    offsets = np.concatenate([[0], np.cumsum(labels.value_lengths().to_numpy(zero_copy_only=False))])
    codes = pc.index_in(labels.flatten(), value_set=names)
    columns["labels"] = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), codes)
    columns["duplicate_group"] = pc.index_in(images["duplicate_group"], value_set=images["image_id"].combine_chunks())
    columns["duplicate_group"] = columns["duplicate_group"].combine_chunks().fill_null(-1)
    rows = pa.record_batch(
        [columns[field.name].cast(field.type) for field in tables.LOOKUP_IMAGES], tables.LOOKUP_IMAGES
    )
    for name, values in metadata_columns(columns["metadata"].to_pylist()).items():
        rows = rows.append_column(f"{tables.METADATA_PREFIX}{name}", values)
    return rows


def metadata_columns(documents: Sequence[str | None]) -> dict[str, pa.Array]:
    """Return a column for each name in the JSON objects: truth values, whole numbers, numbers, text.

    Where values are of several kinds, or lists and objects, they stay JSON documents, which the column holds as bytes.
    """
    columns: dict[str, list[object]] = {}
    for row, document in enumerate(documents):
        for name, value in json.loads(document).items() if document else ():
            columns.setdefault(name, [None] * len(documents))[row] = value
    return {name: _typed(values) for name, values in sorted(columns.items())}


def _typed(values: list[object]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or -_LARGEST <= value < _LARGEST for value in values):  # type: ignore[operator]
        return pa.array(values, pa.int64())
    if kinds <= {int, float} and all(value is None or _is_real(value) for value in values):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())  # type: ignore[arg-type]
    if kinds == {str}:
        return pa.array([None if value is None else as_text(str(value)) for value in values], pa.large_string())
    documents = [None if value is None else json.dumps(value, separators=(",", ":")).encode() for value in values]
    return pa.array(documents, pa.large_binary())


def _is_real(value: object) -> bool:
    """Tell whether a number of 64 bits with a point is this number."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= 2**53)
