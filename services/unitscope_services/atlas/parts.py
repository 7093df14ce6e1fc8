"""The parts of an atlas, opened for reading single row groups and columns."""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from unitscope_pipelines.storage.cache import LocalPart
from unitscope_pipelines.storage.ranked_file import MAGIC, read_footer
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import tables
from unitscope_schemas.entries.part import Part, UnitFooter
from unitscope_schemas.errors import AtlasError
from unitscope_services.atlas.deadlines import check_time

_FOOTER_BYTES = 20 << 20
"""Bytes of the footers that are remembered, as they are stored; in memory they take some ten times as much."""


class Footers:
    """The footers of the parts that were asked for last: to read one takes longer than the rows that a question needs.

    Safe from many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Hashable, pq.FileMetaData] = {}
        self._bytes = 0

    def of(self, key: Hashable, read: Callable[[], pq.FileMetaData]) -> pq.FileMetaData:
        """Return the footer that goes by a key, which is read unless it is remembered."""
        with self._lock:
            footer = self._held.pop(key, None)
            if footer is not None:
                self._held[key] = footer  # the one that was asked for last is at the end
                return footer
        footer = read()
        with self._lock:
            if key not in self._held:
                self._held[key] = footer
                self._bytes += footer.serialized_size
            while self._bytes > _FOOTER_BYTES and len(self._held) > 1:
                self._bytes -= self._held.pop(next(iter(self._held))).serialized_size
        return footer


class Parts:
    """The Parquet parts of an atlas; the footers of those opened last are remembered, for a part never changes.

    Raises AtlasError where a part is missing or damaged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._footers = Footers()

    def footer(self, part: Part) -> pq.FileMetaData:
        """Return the footer of a part."""
        return self._footers.of(part.path, lambda: self._read_footer(part))

    def unit_footer(self, part: Part, own: UnitFooter) -> pq.FileMetaData:
        """Return the footer of a unit's own rows in a ranked part."""
        return self._footers.of((part.path, own.start), lambda: self._read_unit_footer(part, own))

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

    @contextmanager
    def open_unit(self, part: Part, own: UnitFooter, whole: bool = False) -> Iterator[pq.ParquetFile]:
        """Open the rows of one unit in a ranked part, of which nothing else is read.

        Each page that is read is held against its checksum, so that the part need not be digested as a whole. At an
        object store columns that lie side by side are one request, and all rows of the unit if they are `whole`.
        """
        check_time()
        footer, far = self.unit_footer(part, own), not self._store.is_here
        with self._failing_as_atlas_error(part), self._store.open_range(part) as source:
            if far and whole and footer.num_row_groups:
                first = footer.row_group(0).column(0).data_page_offset
                source.seek(first)
                source.read(own.start - first)
            yield pq.ParquetFile(source, metadata=footer, pre_buffer=far, page_checksum_verification=True)

    def read(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        """Return the whole part, or some of its columns."""
        with self.open(part) as file:
            return file.read(columns, use_threads=False)

    def hold(self, part: Part) -> LocalPart:
        """Return the file of a part of any kind, for as long as it is held."""
        return self._store.hold(part)

    def rows(self, file: LocalPart, part: Part) -> pa.RecordBatch:
        """Return the rows of an Arrow part, memory-mapped; they are gone when it is let go."""
        with self._failing_as_atlas_error(part):
            rows = pa.ipc.open_file(pa.memory_map(str(file.path))).get_batch(0)
            rows.validate()
        check_rows(part, rows.schema, rows.num_rows)
        return rows

    def _read_footer(self, part: Part) -> pq.FileMetaData:
        with self._failing_as_atlas_error(part), self._store.hold(part) as file:
            footer = pq.read_metadata(file)
        check_rows(part, footer.schema.to_arrow_schema(), footer.num_rows)
        return footer

    def _read_unit_footer(self, part: Part, own: UnitFooter) -> pq.FileMetaData:
        with self._failing_as_atlas_error(part), self._store.open_range(part) as source:
            stored = read_footer(source, own)
            if stored is None:
                raise AtlasError(f"part {part.path} is damaged: the footer of a unit is not the one that was sealed")
            return pq.read_metadata(pa.BufferReader(MAGIC + stored))

    @contextmanager
    def _failing_as_atlas_error(self, part: Part) -> Iterator[None]:
        """Raise AtlasError that names the part for what fails within the context."""
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:
            raise AtlasError(f"part {part.path} of atlas {self._store.name} is missing or damaged: {error}") from None


_SCHEMAS = {
    "units": tables.UNITS,
    "ranked": tables.RANKED,
    "fields": tables.UNIT_FIELDS,
    "numbers": tables.NUMBERS,
    "skipped": tables.SKIPPED,
    "removed": tables.REMOVED,
    "peaks": tables.PEAKS,
    "images": tables.IMAGES,
    "groups": tables.GROUPS,
    "hot-images": tables.LOOKUP_IMAGES,
    "hot-files": tables.LOOKUP_FILES,
}
"""Tables by the beginning of a part's path."""


def check_rows(part: Part, schema: pa.Schema, row_count: int) -> None:
    """Raise AtlasError for a part that has other rows than its manifest says, or a column of another type.

    Tables of old may lack columns of today.
    """
    if row_count != part.rows:
        raise AtlasError(f"part {part.path} is damaged: it has {row_count} rows, and its manifest says {part.rows}")
    known = next((table for name, table in _SCHEMAS.items() if part.path.startswith((f"{name}/", f"{name}-"))), None)
    for field in known or ():
        position = schema.get_field_index(field.name)
        if position >= 0 and not _is_alike(schema.field(position).type, field.type):
            raise AtlasError(
                f"part {part.path} is damaged: its column {field.name!r} holds {schema.field(position).type}, "
                f"not {field.type}"
            )


def _is_alike(one: pa.DataType, other: pa.DataType) -> bool:
    """Tell whether two types are one, whatever the names of the values within lists are."""
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _is_alike(one.value_type, other.value_type)
    return bool(one == other)
