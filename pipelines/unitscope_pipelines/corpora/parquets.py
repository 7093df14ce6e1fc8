"""Parquet files with image bytes, in Hugging Face's layout or any with one picture a row."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unitscope_pipelines.corpora.arrow_values import can_be_read, json_values
from unitscope_pipelines.corpora.columns import LABEL, USUAL, ColumnChoice, check_once
from unitscope_pipelines.corpora.picture_columns import picture_column
from unitscope_pipelines.corpora.rows import ListedRows
from unitscope_pipelines.corpora.values import Json, as_labels, as_metadata
from unitscope_pipelines.storage.filesystem import Folder
from unitscope_pipelines.storage.stored_file import StoredFile
from unitscope_schemas.addresses import Address, Cell
from unitscope_schemas.errors import CorpusError, listing

_MOST_VALUES, _MOST_BYTES = 100, 1_000
"""Values and bytes of a row on average beyond which lists and structs are no metadata: they are vectors or masks."""

Labels = Callable[[Json], tuple[str, ...]]


def list_parquet(folder: Folder, file: StoredFile, rows: ListedRows, choice: ColumnChoice = USUAL) -> None:
    """Add each row of a file; raises CorpusError that names a file that is broken or holds no pictures.

    Bytes are read only of a few first rows, to find the column of pictures. The path is the file's and the row's number
    in it; labels are written by their names where the schema has names; other columns are metadata, but for bytes and
    long lists, which are named.
    """
    what = f"Parquet file {file.path!r}"
    try:
        with folder.open(file.path) as source, pq.ParquetFile(source) as parquet:
            schema = parquet.schema_arrow
            check_once(schema.names, what)
            pictures = picture_column(source, choice, what)
            label = _label_column(schema, choice, what)
            described = _described_columns(parquet, pictures.name, label, rows)
            if note := pictures.note():
                rows.note(note)
            labels_of = _label_names(schema, label)
            first = 0
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                columns = _read_columns(parquet, group, described)
                labels = columns.get(label or "", [None] * count)
                own = {name: values for name, values in columns.items() if name != LABEL or name != label}
                for row in range(count):
                    address = Address(file.path, Cell(group, row, pictures.stored_name))
                    metadata = as_metadata({name: values[row] for name, values in own.items()})
                    rows.add(f"{file.path}/{first + row}", address, file, labels_of(labels[row]), metadata)
                first += count
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{what} is broken: {error}; restore or remove it") from None


def read_table(what: str, data: bytes) -> dict[str, list[Json]]:
    """Return the columns of a Parquet file that describes pictures, as JSON values; raises CorpusError."""
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as parquet:
            check_once(parquet.schema_arrow.names, what)
            names = [field.name for field in parquet.schema_arrow if can_be_read(field.type)]
            table = parquet.read(columns=names)
            return {name: json_values(table[name].combine_chunks()) for name in names}
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{what} is broken: {error}; restore or remove it") from None


def _read_columns(parquet: pq.ParquetFile, group: int, names: list[str]) -> dict[str, list[Json]]:
    if not names:
        return {}
    table = parquet.read_row_group(group, columns=names)
    return {name: json_values(table[name].combine_chunks()) for name in names}


def _described_columns(parquet: pq.ParquetFile, picture: str, label: str | None, rows: ListedRows) -> list[str]:
    """Return the columns that describe pictures, and note those that are left out."""
    schema, long = parquet.schema_arrow, _long_columns(parquet)
    kept, left_out = [], []
    for field in schema:
        if field.name == picture:
            continue
        nested = pa.types.is_nested(field.type) and not pa.types.is_dictionary(field.type)
        if can_be_read(field.type) and (field.name == label or not nested or field.name not in long):
            kept.append(field.name)
        else:
            left_out.append(f"{field.name} ({_short(field.type)})")
    if left_out:
        rows.note(f"Parquet columns that are neither picture nor metadata: {listing(left_out)}")
    if empty := [field.name for field in schema if pa.types.is_null(field.type)]:
        rows.note(f"Parquet columns without any value: {listing(empty)}")
    return kept


def _long_columns(parquet: pq.ParquetFile) -> set[str]:
    """Return the columns whose rows hold many values, or take many bytes before compression, on average."""
    metadata, names = parquet.metadata, set(parquet.schema_arrow.names)
    values, size_bytes = Counter[str](), Counter[str]()
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            path = chunk.path_in_schema
            name = path if path in names else path.partition(".")[0]
            values[name] += chunk.num_values
            size_bytes[name] += chunk.total_uncompressed_size
    return {
        name
        for name in names
        if values[name] > _MOST_VALUES * metadata.num_rows or size_bytes[name] > _MOST_BYTES * metadata.num_rows
    }


def _label_column(schema: pa.Schema, choice: ColumnChoice, what: str) -> str | None:
    """Return the column of labels: the named one, one with a usual name, or the only one of Hugging Face's classes."""
    found = choice.label_column(schema.names, what)
    if found is None:
        features = _features(schema)
        classes = [name for name in schema.names if _class_names(features.get(name))]
        found = classes[0] if len(classes) == 1 else None
    if found is None or _can_be_label(schema.field(found).type):
        return found
    if choice.label is not None:
        raise CorpusError(f"{what}: column {found!r} is {_short(schema.field(found).type)}, which is no label")
    return None


def _can_be_label(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _can_be_label(kind.value_type)
    return can_be_read(kind) and not pa.types.is_nested(kind)


def _label_names(schema: pa.Schema, label: str | None) -> Labels:
    """Return how labels are written: by the names that Hugging Face keeps for numbers, or as they are."""
    names = _class_names(_features(schema).get(label or ""))
    if not names:
        return as_labels

    def named(value: Json) -> Json:
        if isinstance(value, list):
            return [named(item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool):
            return None if value == -1 else names[value] if 0 <= value < len(names) else value
        return value

    return lambda value: as_labels(named(value))


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(feature: object) -> list[str]:
    """Return the names of a column of classes, or of lists of classes; none for any other."""
    if isinstance(feature, list) and len(feature) == 1:
        return _class_names(feature[0])
    if not isinstance(feature, dict):
        return []
    if isinstance(feature.get("feature"), dict):
        return _class_names(feature["feature"])
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) else []


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 40 else f"{text[:40]}…"
