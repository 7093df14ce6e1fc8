"""Tables of more rows than memory should hold: in temporary files, read column by column or some rows at a time.

Temporary files lie where the environment's TMPDIR says.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROWS_AT_ONCE = 65_536
MEMORY_BYTES = 800_000_000
"""Memory that a join or sort takes before it goes on in temporary files."""
_MOST_THREADS = 4


@dataclass(frozen=True)
class LongTable:
    """A table in a temporary file, which goes when the last reader of the table does."""

    schema: pa.Schema
    num_rows: int
    _folder: tempfile.TemporaryDirectory[str]

    @classmethod
    def written(cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> "LongTable":
        """Write batches of rows that can be cast to a schema."""
        folder = tempfile.TemporaryDirectory(prefix="unitscope-")  # the table keeps it
        with _Writer(folder, schema) as writer:
            for batch in batches:
                writer.add(batch)
        return writer.table

    @classmethod
    def of(cls, table: pa.Table) -> "LongTable":
        """Write a table that memory holds."""
        return cls.written(table.to_batches(max_chunksize=ROWS_AT_ONCE), table.schema)

    @property
    def file(self) -> Path:
        """The Parquet file."""
        return Path(self._folder.name) / "rows.parquet"

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return some columns of all rows."""
        names = self.schema.names if columns is None else columns
        return pa.Table.from_batches(self.batches(names), self._schema_of(names))

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        """Return some columns as a query may read them, once."""
        return pa.RecordBatchReader.from_batches(self._schema_of(columns), self.batches(columns))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield some columns, so many rows at a time."""
        names = self.schema.names if columns is None else list(columns)
        schema = self._schema_of(names)
        with pq.ParquetFile(self.file) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
                yield batch.select(names).cast(schema)

    def _schema_of(self, columns: Sequence[str]) -> pa.Schema:
        return pa.schema([self.schema.field(name) for name in columns])

    def split(self, parts: Sequence[NDArray[np.integer]]) -> "list[LongTable]":
        """Return the rows of each part of the numbers of rows, ascending: reads all rows once."""
        part_of = np.full(self.num_rows, -1, np.int32)
        for number, rows in enumerate(parts):
            part_of[rows] = number
        folders = [tempfile.TemporaryDirectory(prefix="unitscope-") for _ in parts]
        with ExitStack() as stack:
            writers = [stack.enter_context(_Writer(folder, self.schema)) for folder in folders]
            start = 0
            for batch in self.batches():
                own = part_of[start : start + batch.num_rows]
                start += batch.num_rows
                for number in np.unique(own[own >= 0]).tolist():
                    writers[number].add(batch.filter(pa.array(own == number)))
        return [writer.table for writer in writers]


class _Writer:
    """Writes rows into a folder's file in groups of ROWS_AT_ONCE."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], schema: pa.Schema) -> None:
        self._folder, self._schema, self._rows = folder, schema, 0
        self._kept: list[pa.RecordBatch] = []
        self._file = pq.ParquetWriter(Path(folder.name) / "rows.parquet", schema, compression="lz4")

    def __enter__(self) -> "_Writer":
        return self

    def add(self, batch: pa.RecordBatch) -> None:
        self._kept.append(batch)
        self._rows += batch.num_rows
        if sum(kept.num_rows for kept in self._kept) >= ROWS_AT_ONCE:
            self._flush()

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    @property
    def table(self) -> LongTable:
        return LongTable(self._schema, self._rows, self._folder)

    def _flush(self) -> None:
        if self._kept:
            self._file.write_table(pa.Table.from_batches(self._kept).cast(self._schema))
            self._kept = []


def rows_of(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    """Yield the rows of batches as Python objects."""
    for batch in batches:
        yield from batch.to_pylist()


def take_in(database: duckdb.DuckDBPyConnection, name: str, query: str, parts: Iterable[pa.Table]) -> int:
    """Make a table of rows, all of one schema, by a query over `parts`, which are read as it goes; return its length.

    Raises ValueError where there is no part.
    """
    found = iter(parts)
    first = next(found, None)
    if first is None:
        raise ValueError(f"nothing to take into {name}")
    batches = (batch for part in chain([first], found) for batch in part.cast(first.schema).to_batches())
    database.register("parts", pa.RecordBatchReader.from_batches(first.schema, batches))
    database.execute(f"CREATE TABLE {name} AS {query}")
    database.unregister("parts")
    return count_of(database, name)


def count_of(database: duckdb.DuckDBPyConnection, rows: str) -> int:
    """Count the rows of a table, or of what may stand behind FROM."""
    (count,) = database.execute(f"SELECT count(*) FROM {rows}").fetchall()[0]
    return int(count)


@contextmanager
def spilling_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database of this process: what its memory does not hold goes to temporary files."""
    with tempfile.TemporaryDirectory(prefix="unitscope-") as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{MEMORY_BYTES}B",
            "temp_directory": folder,
            "threads": str(min(_MOST_THREADS, os.cpu_count() or 1)),
        }
        with duckdb.connect(":memory:", config=config) as database:
            yield database
