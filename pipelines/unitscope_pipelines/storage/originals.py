"""The bytes of a picture from its address: what a scan reads, and what shows a picture again without one."""

import hashlib
import logging
import os
import weakref
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from unitscope_pipelines.storage.allowed_roots import OutsideError, PictureRoots
from unitscope_pipelines.storage.compressed import UnpackedTar, is_compressed, unpack
from unitscope_pipelines.storage.filesystem import Folder
from unitscope_schemas.addresses import Address, Cell, Range
from unitscope_schemas.errors import AtlasError, CorpusError, NotFoundError

_log = logging.getLogger("unitscope")

_KEPT_TARS = 2
"""Compressed tars that stay unpacked in temporary files."""
_KEPT_GROUPS = 2
"""Row groups that stay in memory: rows are asked for in their order, and a group may take a hundred megabytes."""


@dataclass(frozen=True)
class Original:
    """An image by its id, its path for people, and the addresses of files that held its bytes when it was indexed."""

    image_id: str
    path: str
    addresses: tuple[str, ...]


class Originals:
    """The pictures of a corpus, read by their addresses; safe from any number of threads.

    They lie below a root, or where `PictureRoots` lets them. Raises OSError where a file is gone or cannot be read,
    OutsideError where it may not be, CorpusError that names a Parquet file that is broken.
    """

    def __init__(self, roots: str | PictureRoots) -> None:
        self.folder = Folder(roots) if isinstance(roots, str) else Folder(roots.root, roots.allowed)
        self._lock = Lock()
        self._groups = lru_cache(_KEPT_GROUPS)(self._read_group)
        self._unpacked: dict[str, UnpackedTar] = {}
        self._is_logged = False
        weakref.finalize(self, _close, self._unpacked)

    def read(self, address: str) -> bytes:
        """Read the bytes of the picture at an address; empty where a Parquet row holds none.

        A compressed tar is unpacked into a temporary file at the first read, and the last two stay.
        """
        parsed = Address.parse(address)
        if isinstance(parsed.part, Range):
            if is_compressed(parsed.file):
                return self._read_unpacked(parsed.file, parsed.part)
            return self.folder.read(parsed.file, parsed.part.offset, parsed.part.size_bytes)
        if isinstance(parsed.part, Cell):
            with self._lock:  # two threads would both read the group
                group = self._groups(parsed.file, parsed.part.row_group, parsed.part.column)
            if parsed.part.row >= len(group):
                raise OSError(0, "its row group ends early")
            return _cell(group[parsed.part.row].as_py())
        return self.folder.read(parsed.file)

    def read_original(self, image: Original) -> bytes:
        """Read the bytes of an image; raises NotFoundError if they are gone or no longer those that were indexed, and
        if they lie where none may be read, which is logged once."""
        outside: OutsideError | None = None
        for address in image.addresses:
            try:
                data = self.read(address)
            except OutsideError as error:
                outside = error
                continue
            except (OSError, CorpusError, AtlasError):
                continue
            if hashlib.sha256(data).hexdigest() == image.image_id:
                return data
        if outside is not None:
            self._log_once(image, outside)
            raise NotFoundError(
                f"picture {image.path!r} is not shown: it lies outside the folders that this server shows pictures of; "
                "whoever runs it adds --corpus ROOT, its log says which"
            )
        raise NotFoundError(
            f"picture {image.path!r} is gone or was edited since it was indexed; restore it or index again"
        )

    def _log_once(self, image: Original, outside: OutsideError) -> None:
        """Say for the first picture that may not be read where it lies."""
        if not self._is_logged:
            self._is_logged = True
            _log.warning("picture %r is not shown, for %s: %r", image.path, outside.strerror, outside.filename)

    def _read_unpacked(self, file: str, part: Range) -> bytes:
        with self._lock:
            plain = self._unpacked.get(file)
            if plain is None:
                while len(self._unpacked) >= _KEPT_TARS:
                    self._unpacked.pop(next(iter(self._unpacked))).file.close()
                plain = self._unpacked[file] = unpack(self.folder, file)
            data = os.pread(plain.file.fileno(), part.size_bytes, part.offset)
        if len(data) != part.size_bytes:
            raise OSError(0, "the file ends early")
        return data

    def _read_group(self, file: str, row_group: int, column: str | None) -> pa.ChunkedArray:
        try:
            with self.folder.open(file) as source, pq.ParquetFile(source) as parquet:
                name = column or image_column(parquet.schema_arrow)
                return parquet.read_row_group(row_group, columns=[name], use_threads=False)[name]
        except (pa.ArrowException, KeyError, IndexError) as error:
            raise CorpusError(f"Parquet file {file!r} is broken: {error}; restore it and run again") from None


def _close(unpacked: dict[str, UnpackedTar]) -> None:
    for plain in unpacked.values():
        plain.file.close()


def image_column(schema: pa.Schema) -> str:
    """Return the column that holds the pictures where an address names none.

    It is a struct with the field `bytes`, or binary; the one named `image` if there are several. Raises KeyError that
    names the columns there are if there is none.
    """
    columns = [field.name for field in schema if bytes_column(field.type)]
    columns += [field.name for field in schema if _is_binary(field.type)]
    if not columns:
        raise KeyError(f"it has no column of image bytes, only {', '.join(schema.names) or 'none'}")
    return "image" if "image" in columns else columns[0]


def holds_bytes(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can hold pictures: bytes, or structs with the field `bytes`."""
    return bytes_column(kind) is not None or _is_binary(kind) or bool(pa.types.is_binary_view(kind))


def bytes_column(kind: pa.DataType) -> str | None:
    """Return the field of a struct that holds bytes, None where the column is no such struct."""
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return "bytes" if is_struct and _is_binary(kind.field("bytes").type) else None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _cell(value: bytes | dict[str, object] | None) -> bytes:
    """Return the bytes of a picture from its cell, empty if it has none; raises OSError where it has a path alone."""
    if not isinstance(value, dict):
        return value or b""
    data, path = value.get("bytes"), value.get("path")
    if not data and path:
        raise OSError(0, f"its row holds no bytes, only the path {path!r}")
    return data if isinstance(data, bytes) else b""
