"""Rows as JSON, NDJSON, CSV, Arrow and Parquet: one flat table for all but JSON."""

import io
import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pydantic import BaseModel

from schemas.geometry import Box, Size

TableFormat = Literal["json", "ndjson", "csv", "arrow", "parquet"]
FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)

MEDIA_TYPES: dict[TableFormat, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}


def json_text(content: Any) -> str:
    """One JSON document; NaN and infinities become null."""
    try:
        return _dump(content, default=vars)
    except ValueError:
        return _dump(_plain(content))


_dump = partial(json.dumps, ensure_ascii=False, allow_nan=False, check_circular=False)


def rows_as(rows: Sequence[BaseModel], kind: type[BaseModel], file_format: TableFormat) -> bytes:
    """Rows of one kind as a file; boxes and sizes become one column per side, in their order."""
    if file_format == "json":
        return json_text(rows).encode()
    if file_format == "ndjson":
        return "".join(json_text(row) + "\n" for row in rows).encode()
    table = as_table(rows, kind)
    sink = io.BytesIO()
    if file_format == "csv":
        pa.csv.write_csv(table, sink)
    elif file_format == "arrow":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        pa.parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def as_table(rows: Sequence[BaseModel], kind: type[BaseModel]) -> pa.Table:
    """An Arrow table with the flat columns of `kind`, also without rows."""
    schema = pa.schema(
        [column for name, field in kind.model_fields.items() for column in _columns(name, field.annotation)]
    )
    return pa.Table.from_pylist([_flat(row) for row in rows], schema=schema)


def _columns(name: str, annotation: Any) -> list[pa.Field]:
    inner = [part for part in get_args(annotation) or (annotation,) if part is not type(None)]
    kind = inner[0] if not isinstance(inner[0], str) else str
    if kind in (Box, Size):
        return [pa.field(f"{name}_{side}", pa.int32()) for side in kind._fields]
    if annotation == list[str]:
        return [pa.field(name, pa.list_(pa.string()))]
    types = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    return [pa.field(name, types[kind])]


def _flat(row: BaseModel) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in type(row).model_fields:
        value = getattr(row, name)
        if isinstance(value, Box | Size):
            flat |= {f"{name}_{side}": part for side, part in value._asdict().items()}
        else:
            flat[name] = value
    return flat


def _plain(content: Any) -> Any:
    if isinstance(content, BaseModel):
        return {name: _plain(getattr(content, name)) for name in type(content).model_fields}
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return content
