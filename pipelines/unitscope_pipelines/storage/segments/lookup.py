"""The images of a segment as answers look them up: rows and paths for memory-mapped Arrow files, typed metadata."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_schemas import tables
from unitscope_schemas.addresses import as_text

_LARGEST = 2**63


def lookup_rows(images: pa.Table) -> pa.RecordBatch:
    """Return rows of `tables.SEGMENT_IMAGES` in one batch, with a column for each name in the metadata.

    Taking rows of several batches would copy whole columns.
    """
    columns = {name: images[name].combine_chunks() for name in images.column_names}
    columns["labels"] = _numbered(columns["labels"])
    rows = pa.record_batch(
        [columns[field.name].cast(field.type) for field in tables.LOOKUP_IMAGES], tables.LOOKUP_IMAGES
    )
    for name, values in metadata_columns(columns["metadata"].to_pylist()).items():
        rows = rows.append_column(f"{tables.METADATA_PREFIX}{name}", values)
    return rows


def lookup_files(images: pa.Table) -> pa.RecordBatch:
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
