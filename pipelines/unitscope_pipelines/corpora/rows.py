"""Pictures as a listing sees them are rows of an Arrow table, for a million objects would take a gigabyte."""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from unitscope_pipelines.storage.filesystem import StoredFile
from unitscope_schemas import tables
from unitscope_schemas.addresses import Address

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .npy".split()  # noqa: SIM905
)
_ROWS_PER_BATCH = 65_536


class ListedRows:
    """A collection of listed pictures; `table` gives them in order of their paths, each path once."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._columns: dict[str, list[object]] = {name: [] for name in tables.LISTED.names}

    def add(
        self, path: str, address: Address, file: StoredFile, label: str | None = None, metadata: str | None = None
    ) -> None:
        """Add a picture at an address within a file."""
        columns = self._columns
        columns["path"].append(path)
        columns["label"].append(label)
        columns["metadata"].append(metadata)
        columns["address"].append(str(address))
        columns["file_bytes"].append(file.size_bytes)
        columns["modified_ns"].append(file.modified_ns)
        if len(columns["path"]) == _ROWS_PER_BATCH:
            self._finish_batch()

    def table(self) -> pa.Table:
        """Return all rows added so far, with the schema `tables.LISTED`; of several with one path the first."""
        self._finish_batch()
        listed = pa.Table.from_batches(self._batches, tables.LISTED).sort_by("path")
        paths = listed["path"].to_numpy()
        first = np.ones(len(paths), bool)
        first[1:] = paths[1:] != paths[:-1]
        return listed if first.all() else listed.filter(pa.array(first))

    def _finish_batch(self) -> None:
        self._batches.append(pa.RecordBatch.from_pydict(self._columns, tables.LISTED))
        self._columns = {name: [] for name in tables.LISTED.names}


def is_picture(path: str) -> bool:
    """Tell whether a file's name says that it is a picture, and not a hidden one."""
    name = path.rpartition("/")[2]
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def folder_of(path: str) -> str | None:
    """Return the folder of a file below the corpus root, None for a file of the root itself."""
    return path.rpartition("/")[0] or None


def as_metadata(values: Mapping[str, object]) -> str | None:
    """Write the values that are one number, truth value or text as JSON; dates are text, missing ones are left out.

    None where nothing is left.
    """
    scalars = {name: scalar for name, value in values.items() if (scalar := _scalar(value)) is not None}
    return json.dumps(scalars, ensure_ascii=False, separators=(",", ":")) if scalars else None


def as_label(value: object) -> str | None:
    """Return a label as text; None where it is missing or empty."""
    return None if value is None or value == "" else str(value)


def _scalar(value: object) -> bool | int | float | str | None:
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, date | datetime | time) else None
