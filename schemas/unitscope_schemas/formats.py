"""Rows are written as JSON, NDJSON, CSV, Arrow and Parquet: one flat table for all but JSON."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import orjson
import pyarrow as pa
import pyarrow.compute as pc
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


_FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"
"""How text begins that spreadsheets take for a formula, or drop to find one behind it."""
_NUMBER = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"


def json_bytes(content: Any) -> bytes:
    """Return one JSON document; NaN and infinities become null."""
    return orjson.dumps(content, _plain, orjson.OPT_PASSTHROUGH_DATACLASS)


def rows_as(rows: Sequence[Any], kind: type, file_format: TableFormat, safe: bool = False) -> bytes:
    """Return rows of one data class as a file; boxes and sizes become one column per side, in their order.

    `safe`: a CSV for spreadsheets, in which no text is taken for a formula. Arrow is the file format, which `read_ipc`
    of polars and `read_feather` of pandas open, not a stream.
    """
    if file_format == "json":
        return json_bytes(rows)
    if file_format == "ndjson":
        return b"".join(json_bytes(row) + b"\n" for row in rows)
    table = as_table(rows, kind)
    sink = io.BytesIO()
    if file_format == "csv":
        pa.csv.write_csv(csv_table(table, safe), sink)
    elif file_format == "arrow":
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        pa.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def csv_table(table: pa.Table, safe: bool = False) -> pa.Table:
    """Return the table as a CSV can hold it: lists are JSON texts.

    `safe`: an apostrophe stands before each text that a spreadsheet would take for a formula; numbers stay as they are.
    """
    for position, field in enumerate(table.schema):
        column = table[field.name]
        if pa.types.is_list(field.type):
            column = pa.chunked_array([[json_bytes(value).decode() for value in column.to_pylist()]], pa.string())
        if safe and pa.types.is_string(column.type):
            is_formula = pc.and_(
                pc.match_substring_regex(column, _FORMULA), pc.invert(pc.match_substring_regex(column, _NUMBER))
            )
            column = pc.if_else(is_formula, pc.binary_join_element_wise("'", column, ""), column)
        table = table.set_column(position, field.name, column)
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
