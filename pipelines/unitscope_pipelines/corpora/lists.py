"""Lists of pictures: CSV or JSON lines with the column `path`, or text with a path on each line."""

import io
from collections.abc import Iterator, Mapping
from itertools import count
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from unitscope_pipelines.corpora.rows import ListedRows, as_label, as_metadata
from unitscope_pipelines.storage.filesystem import Folder, StoredFile
from unitscope_schemas.addresses import Address
from unitscope_schemas.errors import CorpusError

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".txt")
_ROWS_PER_BATCH = 65_536
_BLOCK_BYTES = 16 << 20
"""Bytes that are read at once from a JSON list; a longer line cannot be read."""


class ListEntry(NamedTuple):
    """A picture that a list names."""

    path: object
    """Content of the column `path`, which may be anything."""
    label: object = None
    metadata: Mapping[str, object] = {}
    """Values of all other columns, by the columns' names."""


def list_entries(folder: Folder, name: str, rows: ListedRows) -> None:
    """Add a list's entries: the column `path`, relative to the list or whole; `label`; the rest is metadata.

    An entry whose file is missing is listed too, so that reading it gives the reason. Raises CorpusError for a
    list that cannot be read and for entries with another protocol than s3.
    """
    try:
        data = folder.read(name)
        batches = _lines(data) if name.lower().endswith(".txt") else _records(name, data)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorpusError(f"list {name!r} cannot be read: {error}") from None
    number = count(1)
    for batch in batches:
        paths = [_checked(name, next(number), entry.path) for entry in batch]
        states = folder.sizes(paths)
        for path, state, entry in zip(paths, states, batch, strict=True):
            file = state or StoredFile(path, size_bytes=0, modified_ns=0)
            rows.add(path, Address(path), file, as_label(entry.label), as_metadata(entry.metadata))


def _lines(data: bytes) -> Iterator[list[ListEntry]]:
    batch: list[ListEntry] = []
    for line in io.TextIOWrapper(io.BytesIO(data), errors="surrogateescape"):
        if path := line.strip():
            batch.append(ListEntry(path))
        if len(batch) == _ROWS_PER_BATCH:
            yield batch
            batch = []
    yield batch


def _records(name: str, data: bytes) -> Iterator[list[ListEntry]]:
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
    return ([_entry(values) for values in batch.to_pylist()] for batch in table.to_batches(_ROWS_PER_BATCH))


def _entry(values: dict[str, object]) -> ListEntry:
    return ListEntry(values.pop("path", None), values.pop("label", None), values)


def _checked(name: str, number: int, path: object) -> str:
    """Return the path of an entry of a list; raises CorpusError where it is missing or cannot be read."""
    if not isinstance(path, str) or not path:
        raise CorpusError(f"entry {number} of list {name!r} has no path")
    scheme, colon, _ = path.partition("://")
    if colon and scheme != "s3":
        raise CorpusError(f"entry {number} of list {name!r} is {path!r}: download it first; read are files and s3://")
    return path
