"""The parts of an atlas, opened for reading single row groups and columns."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from unitscope_pipelines.storage.cache import LocalPart
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas.errors import AtlasError
from unitscope_schemas.manifest import Part
from unitscope_services.atlas.deadlines import check_time

_REMEMBERED_FOOTERS = 512
"""Footers that are remembered, of up to 0.3 MB each: to read one takes longer than to read the rows that a question
needs."""


class Parts:
    """The Parquet parts of an atlas; the footers of those opened last are remembered, for a part never changes.

    Raises AtlasError where a part is missing or damaged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.footer = lru_cache(_REMEMBERED_FOOTERS)(self._read_footer)

    @contextmanager
    def open(self, part: Part) -> Iterator[pq.ParquetFile]:
        """Open the part, for reading what is asked when it is asked.

        To buffer it beforehand, on threads of the reader's own, takes up to five times as long; to map it into memory a
        tenth to a fourth longer, for faults of fresh pages.
        """
        check_time()
        footer = self.footer(part)
        with self._failing_as_atlas_error(part), self._store.hold(part) as file, pa.OSFile(str(file)) as source:
            yield pq.ParquetFile(source, metadata=footer, pre_buffer=False)

    def read(self, part: Part) -> pa.Table:
        """Return the whole part."""
        with self.open(part) as file:
            return file.read(use_threads=False)

    def hold(self, part: Part) -> LocalPart:
        """Return the file of a part of any kind, for as long as it is held."""
        return self._store.hold(part)

    def rows(self, file: LocalPart, part: Part) -> pa.RecordBatch:
        """Return the rows of an Arrow part, memory-mapped; they are gone when it is let go."""
        with self._failing_as_atlas_error(part):
            return pa.ipc.open_file(pa.memory_map(str(file.path))).get_batch(0)

    def _read_footer(self, part: Part) -> pq.FileMetaData:
        with self._failing_as_atlas_error(part), self._store.hold(part) as file:
            return pq.read_metadata(file)

    @contextmanager
    def _failing_as_atlas_error(self, part: Part) -> Iterator[None]:
        """Raise AtlasError that names the part for what fails within the context."""
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:
            raise AtlasError(f"part {part.path} of atlas {self._store.name} is missing or damaged: {error}") from None
