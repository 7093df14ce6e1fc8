"""Parquet files with image bytes, in Hugging Face's layout or any with one binary column."""

import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from unitscope_pipelines.corpora.rows import ListedRows, as_label, as_metadata
from unitscope_pipelines.storage.filesystem import Folder, StoredFile
from unitscope_pipelines.storage.originals import image_column
from unitscope_schemas.addresses import Address, Cell
from unitscope_schemas.errors import CorpusError

_LABEL = "label"


def list_parquet(folder: Folder, file: StoredFile, rows: ListedRows) -> None:
    """Add each row of a file; raises CorpusError that names a file that is broken or holds no pictures.

    Bytes are not read. The path is the file's and the row's number in it; `label` is the label, by its name where
    the schema has names; other columns of numbers and text are metadata.
    """
    try:
        with folder.open(file.path) as source, pq.ParquetFile(source) as parquet:
            schema = parquet.schema_arrow
            image_column(schema)
            columns = [field.name for field in schema if _is_scalar(field.type)]
            named = _label_names(schema)
            first = 0
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                described = parquet.read_row_group(group, columns=columns).to_pylist() if columns else [{}] * count
                for row, values in enumerate(described):
                    label = named(values.pop(_LABEL, None))
                    address = Address(file.path, Cell(group, row))
                    rows.add(f"{file.path}/{first + row}", address, file, label, as_metadata(values))
                first += count
    except KeyError as error:
        raise CorpusError(f"Parquet file {file.path!r}: {error.args[0]}") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise CorpusError(f"Parquet file {file.path!r} is broken: {error}; restore or remove it") from None


def _label_names(schema: pa.Schema) -> Callable[[object], str | None]:
    """Return how labels are written: by the names that Hugging Face keeps for numbers, or as they are."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[_LABEL]["names"]
    except (KeyError, ValueError, TypeError):
        return as_label
    return lambda value: names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _is_scalar(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
