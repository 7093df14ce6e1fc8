"""Lists of pictures: CSV or JSON lines with the column `path`, or text with a path on each line."""

import io
from collections.abc import Iterator
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from unitscope_pipelines.corpora.rows import ListedRows, as_label, as_metadata
from unitscope_pipelines.storage.filesystem import File, Place
from unitscope_schemas.addresses import Address
from unitscope_schemas.errors import CorpusError

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".txt")
_ROWS_PER_PIECE = 65_536
_BLOCK_BYTES = 16 << 20
"""Read at once from a JSON list; a longer line cannot be read."""


def list_entries(place: Place, name: str, rows: ListedRows) -> None:
    """Add a list's entries: the column `path`, relative to the list or whole; `label`; the rest is metadata.

    An entry whose file is missing is listed too, so that reading it gives the reason. Raises CorpusError for a
    list that cannot be read and for entries with another protocol than s3.
    """
    try:
        data = place.read(name)
        pieces = _lines(data) if name.lower().endswith(".txt") else _records(name, data)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorpusError(f"list {name!r} cannot be read: {error}") from None
    number = count(1)
    for piece in pieces:
        paths = [_checked(name, next(number), values.pop("path", None)) for values in piece]
        states = place.sizes(paths)
        for path, state, values in zip(paths, states, piece, strict=True):
            label = as_label(values.pop("label", None))
            rows.add(path, Address(path), state or File(path, 0, 0), label, as_metadata(values))


def _lines(data: bytes) -> Iterator[list[dict[str, Any]]]:
    piece: list[dict[str, Any]] = []
    for line in io.TextIOWrapper(io.BytesIO(data), errors="surrogateescape"):
        if path := line.strip():
            piece.append({"path": path})
        if len(piece) == _ROWS_PER_PIECE:
            yield piece
            piece = []
    yield piece


def _records(name: str, data: bytes) -> Iterator[list[dict[str, Any]]]:
    source = pa.py_buffer(data)
    if name.lower().endswith(".csv"):
        text = {"path": pa.string(), "label": pa.string()}
        convert = pa.csv.ConvertOptions(column_types=text)
        table = pa.csv.read_csv(pa.BufferReader(source), convert_options=convert)
    else:
        read = pa.json.ReadOptions(block_size=_BLOCK_BYTES)
        table = pa.json.read_json(pa.BufferReader(source), read_options=read)
    if "path" not in table.column_names:
        raise CorpusError(f"list {name!r} has no column 'path'; it has {', '.join(table.column_names)}")
    return (batch.to_pylist() for batch in table.to_batches(_ROWS_PER_PIECE))


def _checked(name: str, number: int, path: object) -> str:
    if not isinstance(path, str) or not path:
        raise CorpusError(f"entry {number} of list {name!r} has no path")
    scheme, colon, _ = path.partition("://")
    if colon and scheme != "s3":
        raise CorpusError(f"entry {number} of list {name!r} is {path!r}: download it first; read are files and s3://")
    return path
