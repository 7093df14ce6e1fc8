"""The images of a segment as answers look them up: rows and paths for memory-mapped Arrow files, typed metadata."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_schemas import tables
from unitscope_schemas.addresses import as_text

_LARGEST, _LARGEST_REAL = 2**63, 2**53
_ROWS_AT_ONCE = 65_536


class Columns(Protocol):
    """Rows that give one column at a time."""

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """Return a column."""


def lookup_rows(images: Columns) -> pa.RecordBatch:
    """Return rows of `tables.SEGMENT_IMAGES` in one batch, with a column for each name in the metadata.

    Taking rows of several batches would copy whole columns.
    """
    rows = pa.record_batch([_column(images, field) for field in tables.LOOKUP_IMAGES], tables.LOOKUP_IMAGES)
    for name, values in metadata_columns(images["metadata"].chunks).items():
        rows = rows.append_column(f"{tables.METADATA_PREFIX}{name}", values)
    return rows


def _column(images: Columns, field: pa.Field) -> pa.Array:
    column = images[field.name].combine_chunks()
    return (_numbered(column) if field.name == "labels" else column).cast(field.type)


def lookup_files(images: Columns) -> pa.RecordBatch:
    """Return the paths of all files of images in order, each with the row of its image."""
    paths, other_paths = (images[name].combine_chunks() for name in ("path", "other_paths"))
    others = other_paths.flatten().cast(pa.large_string())
    counts = other_paths.value_lengths().to_numpy(zero_copy_only=False)
    every = pa.concat_arrays([paths.cast(pa.large_string()), others])
    rows = np.arange(len(paths), dtype=np.int32)
    order = pc.sort_indices(every)
    found = pa.array(np.concatenate([rows, np.repeat(rows, counts)]))
    return pa.record_batch([every.take(order), found.take(order)], tables.LOOKUP_FILES)


def _numbered(labels: pa.Array) -> pa.Array:
    """Return the lists of labels as lists of numbers with the labels in order."""
    named = labels.flatten()
    names = pc.unique(named).sort()
    codes = pa.DictionaryArray.from_arrays(pc.index_in(named, value_set=names), names.cast(pa.large_string()))
    ends = np.cumsum(labels.value_lengths().to_numpy(zero_copy_only=False))
    return pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int64()), codes)


def metadata_columns(documents: Sequence[pa.Array]) -> dict[str, pa.Array]:
    """Return a column for each name in JSON objects, null where there is none: truth values, whole numbers, numbers,
    text.

    Where values are of several kinds, or lists and objects, they stay JSON documents, which the column holds as bytes.
    The objects are read twice, so many at a time: memory holds the columns alone.
    """
    kinds: defaultdict[str, _Kind] = defaultdict(_Kind)
    for texts in _pieces(documents):
        for text in texts:
            for name, value in json.loads(text).items() if text else ():
                kinds[name].see(value)
    found: dict[str, list[pa.Array]] = {name: [] for name in sorted(kinds)}
    for texts in _pieces(documents) if kinds else ():
        values: dict[str, list[object]] = {name: [None] * len(texts) for name in found}
        for row, text in enumerate(texts):
            for name, value in json.loads(text).items() if text else ():
                values[name][row] = value
        for name, arrays in found.items():
            arrays.append(kinds[name].array(values[name]))
    return {name: pa.concat_arrays(arrays) for name, arrays in found.items()}


def _pieces(documents: Sequence[pa.Array]) -> Iterator[list[str | None]]:
    for column in documents:
        for start in range(0, len(column), _ROWS_AT_ONCE):
            yield column.slice(start, _ROWS_AT_ONCE).to_pylist()


@dataclass
class _Kind:
    """What kinds of values a name has."""

    types: set[type] = field(default_factory=set)
    is_short: bool = True
    """Whether all numbers have 64 bits, if they are whole."""
    is_real: bool = True
    """Whether all are what a number of 64 bits with a point can be."""

    def see(self, value: object) -> None:
        """Take a value into account."""
        if value is None:
            return
        self.types.add(type(value))
        if isinstance(value, int):
            self.is_short &= -_LARGEST <= value < _LARGEST
            self.is_real &= abs(value) <= _LARGEST_REAL

    def array(self, values: list[object]) -> pa.Array:
        """Return some of the values."""
        if self.types == {bool}:
            return pa.array(values, pa.bool_())
        if self.types == {int} and self.is_short:
            return pa.array(values, pa.int64())
        if self.types <= {int, float} and self.is_real:
            return pa.array([None if value is None else float(value) for value in values], pa.float64())  # type: ignore[arg-type]
        if self.types == {str}:
            return pa.array([None if value is None else as_text(str(value)) for value in values], pa.large_string())
        documents = [None if value is None else json.dumps(value, separators=(",", ":")).encode() for value in values]
        return pa.array(documents, pa.large_binary())
