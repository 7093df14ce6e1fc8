"""Rows are written as JSON, NDJSON, CSV, Arrow and Parquet: one flat table for all but JSON."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from unitscope_schemas.geometry import Box, Size

TableFormat = Literal["json", "ndjson", "csv", "arrow", "parquet"]
FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)

MEDIA_TYPES: dict[TableFormat, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.file",
    "parquet": "application/vnd.apache.parquet",
}


def json_bytes(content: Any) -> bytes:
    """Return one JSON document; NaN and infinities become null."""
    return orjson.dumps(content, _plain, orjson.OPT_PASSTHROUGH_DATACLASS)


def rows_as(rows: Sequence[Any], kind: type, file_format: TableFormat) -> bytes:
    """Return rows of one data class as a file; boxes and sizes become one column per side, in their order.

    Arrow is the file format, which `read_ipc` of polars and `read_feather` of pandas open, not a stream.
    """
    if file_format == "json":
        return json_bytes(rows)
    if file_format == "ndjson":
        return b"".join(json_bytes(row) + b"\n" for row in rows)
    table = as_table(rows, kind)
    sink = io.BytesIO()
    if file_format == "csv":
        pa.csv.write_csv(without_lists(table), sink)
    elif file_format == "arrow":
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        pa.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def without_lists(table: pa.Table) -> pa.Table:
    """Return the table with lists as JSON texts, for a CSV has no other way to hold them."""
    for position, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = [json_bytes(value).decode() for value in table[field.name].to_pylist()]
            table = table.set_column(position, field.name, pa.array(texts, pa.string()))
    return table


def as_table(rows: Sequence[Any], kind: type) -> pa.Table:
    """Return an Arrow table with the flat columns of `kind`, also without rows."""
    columns: dict[str, pa.Array] = {}
    for name, annotation in get_type_hints(kind).items():
        values = [getattr(row, name) for row in rows]
        for field, column in _columns(name, annotation, values):
            columns[field.name] = pa.array(column, field.type)
    return pa.table(columns)


def _columns(name: str, annotation: Any, values: list[Any]) -> Iterator[tuple[pa.Field, list[Any]]]:
    """Return the flat columns of one field with their values: a box or a size has one for each side."""
    inner = [part for part in get_args(annotation) or (annotation,) if part is not type(None)]
    kind = inner[0] if get_origin(inner[0]) is None and not isinstance(inner[0], str) else str
    if kind in (Box, Size):
        for position, side in enumerate(kind._fields):
            yield (
                pa.field(f"{name}_{side}", pa.int32()),
                [None if value is None else value[position] for value in values],
            )
    elif annotation == list[str]:
        yield pa.field(name, pa.list_(pa.string())), values
    elif get_origin(annotation) in (dict, list):
        yield pa.field(name, pa.string()), [json_bytes(value).decode() for value in values]
    else:
        types = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
        yield pa.field(name, types[kind]), values


def _plain(content: Any) -> Any:
    """Return what JSON shows of a named tuple, a data class (sooner than the library itself does) or a model."""
    return tuple(content) if isinstance(content, tuple) else vars(content)
