"""The Parquet parts of an atlas, opened for reading single row groups and columns."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import AtlasError

_KEPT_FOOTERS = 512
"""Of up to 0.3 MB each: to read a footer takes longer than to read the rows that a question needs."""


class Parts:
    """Opens parts by their path; the footers of those opened last are kept, for a part never changes.

    Raises AtlasError where a part is missing or damaged.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.footer = lru_cache(_KEPT_FOOTERS)(self._read_footer)

    @contextmanager
    def open(self, path: str) -> Iterator[pq.ParquetFile]:
        """The part, memory-mapped."""
        footer = self.footer(path)
        with self._told(path), pa.memory_map(str(self._root / path)) as source:
            yield pq.ParquetFile(source, metadata=footer)

    def read(self, path: str) -> pa.Table:
        """The whole part."""
        with self._told(path):
            return pq.read_table(self._root / path, partitioning=None)

    def _read_footer(self, path: str) -> pq.FileMetaData:
        with self._told(path):
            return pq.read_metadata(self._root / path)

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:
            name = self._root.resolve().name
            raise AtlasError(f"part {path} of atlas {name} is missing or damaged: {error}") from None
