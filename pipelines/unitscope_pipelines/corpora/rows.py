"""Pictures as a listing sees them: rows of an Arrow table, for a million objects would take a gigabyte."""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from unitscope_pipelines.storage.filesystem import File
from unitscope_schemas import tables
from unitscope_schemas.addresses import Address

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff".split()  # noqa: SIM905
)
_ROWS_PER_BATCH = 65_536


class ListedRows:
    """Collects listed pictures; `table` gives them in order of their paths, each path once."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._columns: list[list[object]] = [[] for _ in tables.LISTED]

    def add(
        self, path: str, address: Address, file: File, label: str | None = None, metadata: str | None = None
    ) -> None:
        """A picture at an address within a file."""
        row = (path, label, metadata, str(address), file.size_bytes, file.modified_ns)
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)
        if len(self._columns[0]) == _ROWS_PER_BATCH:
            self._finish_batch()

    def table(self) -> pa.Table:
        """All rows added so far; of several with one path the first."""
        self._finish_batch()
        found = pa.Table.from_batches(self._batches, tables.LISTED).sort_by("path")
        paths = found["path"].to_numpy()
        first = np.ones(len(paths), bool)
        first[1:] = paths[1:] != paths[:-1]
        return found if first.all() else found.filter(pa.array(first))

    def _finish_batch(self) -> None:
        arrays = [pa.array(column, field.type) for column, field in zip(self._columns, tables.LISTED, strict=True)]
        self._batches.append(pa.record_batch(arrays, tables.LISTED))
        self._columns = [[] for _ in tables.LISTED]


def is_picture(path: str) -> bool:
    """Whether a file's name says that it is a picture, and not a hidden one."""
    name = path.rpartition("/")[2]
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def folder_of(path: str) -> str | None:
    """The folder of a file below the corpus root."""
    return path.rpartition("/")[0] or None


def as_metadata(values: Mapping[str, object]) -> str | None:
    """The values that are one number, truth value or text, as JSON; dates are text, missing ones are left out."""
    kept = {name: value for name, one in values.items() if (value := _scalar(one)) is not None}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")) if kept else None


def as_label(value: object) -> str | None:
    """A label as text; None where it is missing or empty."""
    return None if value is None or value == "" else str(value)


def _scalar(value: object) -> bool | int | float | str | None:
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, date | datetime | time) else None
