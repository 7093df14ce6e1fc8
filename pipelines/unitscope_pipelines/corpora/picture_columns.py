"""The column of a Parquet file that holds its pictures is found by what is in it, not by where it stands."""

import io
import warnings
from dataclasses import dataclass
from itertools import islice
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from unitscope_pipelines.corpora.columns import ColumnChoice
from unitscope_pipelines.storage.originals import bytes_column, holds_bytes, image_column
from unitscope_schemas.errors import CorpusError, listing

_SEEN_ROWS, _SEEN_VALUES = 256, 4
"""Count of first rows of a file that are looked at, and of values among them that are."""
_AT_ONCE_BYTES = 1 << 18
"""Bytes that are read at once: without a limit it would be all pictures of a row group."""


@dataclass(frozen=True)
class PictureColumn:
    """The column of a file's pictures."""

    name: str
    stored_name: str | None
    """Name that addresses must say, None where readers find the column without it, as in atlases made before."""
    other_bytes: tuple[str, ...]
    """Further columns that hold bytes, and are not read."""
    other_pictures: tuple[str, ...]
    """Further columns whose bytes are pictures."""

    def note(self) -> str | None:
        """Return what a person should know of the choice, None if there was none."""
        if not self.other_bytes:
            return None
        also = f"; {listing(self.other_pictures)} holds pictures too: --image-column chooses"
        return f"pictures are of the Parquet column {self.name!r}{also if self.other_pictures else ''}"


@dataclass(frozen=True)
class _Sight:
    """What the first values of a column are."""

    value_count: int
    picture_count: int
    path: str | None
    """First path of a value that has no bytes."""


def picture_column(source: IO[bytes], choice: ColumnChoice, what: str) -> PictureColumn:
    """Return the column of pictures; raises CorpusError, which begins with `what`, where there is none or no one."""
    parquet = pq.ParquetFile(source, buffer_size=_AT_ONCE_BYTES)
    schema = parquet.schema_arrow
    candidates = [field.name for field in schema if holds_bytes(field.type)]
    if choice.image is not None and choice.image in schema.names and choice.image not in candidates:
        raise CorpusError(f"{what}: column {choice.image!r} is {_kind(schema.field(choice.image).type)}, not bytes")
    if not candidates:
        columns = listing(f"{field.name} ({_kind(field.type)})" for field in schema)
        raise CorpusError(f"{what} has no column of image bytes, only {columns or 'none'}: one picture a row is read")
    sights = {name: _look_at(parquet, name) for name in candidates}
    pictures = [name for name, sight in sights.items() if 0 < sight.picture_count == sight.value_count]
    paths = [sight.path for sight in sights.values() if sight.path is not None]
    if not any(sight.value_count for sight in sights.values()) and paths and parquet.metadata.num_rows:
        raise CorpusError(
            f"{what} holds no bytes of pictures, only their paths, for example {paths[0]!r}: index those files, by a "
            "list of their paths, or write the data set with its pictures within"
        )
    name = choice.image_column(schema.names, pictures or candidates, what)
    return PictureColumn(
        name=name,
        stored_name=None if _found_before(schema) == name else name,
        other_bytes=tuple(other for other in candidates if other != name),
        other_pictures=tuple(other for other in pictures if other != name),
    )


def _look_at(parquet: pq.ParquetFile, name: str) -> _Sight:
    data, first_path = list[bytes](), None
    rows = parquet.iter_batches(1, columns=[name], use_threads=False)
    for value, path in (row for batch in islice(rows, _SEEN_ROWS) for row in _values(batch.column(0))):
        if value:
            data.append(value)
        elif path and first_path is None:
            first_path = path
        if len(data) == _SEEN_VALUES:
            break
    return _Sight(len(data), sum(map(_is_picture, data)), first_path)


def _values(column: pa.Array) -> list[tuple[bytes | None, str | None]]:
    field = bytes_column(column.type)
    if field is None:
        return [(value, None) for value in column.to_pylist()]
    kind = column.type
    has_path = kind.get_field_index("path") >= 0 and pa.types.is_string(kind.field("path").type)
    paths = column.field("path").to_pylist() if has_path else [None] * len(column)
    return list(zip(column.field(field).to_pylist(), paths, strict=True))


def _is_picture(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data)).close()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def _found_before(schema: pa.Schema) -> str | None:
    """Return the column that readers find without its name."""
    try:
        return image_column(schema)
    except KeyError:
        return None


def _kind(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 40 else f"{text[:40]}…"
