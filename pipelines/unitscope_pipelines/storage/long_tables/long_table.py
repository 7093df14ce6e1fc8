"""Tables of more rows than memory should hold: in temporary files, read column by column or some rows at a time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.storage.long_tables.scratch import Scratch, scratch_folder, writing_scratch

ROWS_AT_ONCE = 65_536


class LongTable:
    """A table in a temporary file, which goes when nothing holds the table any more."""

    def __init__(self, schema: pa.Schema, num_rows: int, folder: Scratch) -> None:
        self.schema, self.num_rows, self._folder = schema, num_rows, folder

    @classmethod
    def written(cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> "LongTable":
        """Write batches of rows that can be cast to a schema."""
        with LongTableWriter(schema) as writer:
            for batch in batches:
                writer.add(batch)
        return writer.finish()

    @classmethod
    def of(cls, table: pa.Table) -> "LongTable":
        """Write a table that memory holds."""
        return cls.written(table.to_batches(max_chunksize=ROWS_AT_ONCE), table.schema)

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, column: str) -> pa.ChunkedArray:
        return self.read([column])[column]

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return some columns of all rows, all columns by default."""
        return pa.Table.from_batches(self.batches(columns), self._schema_of(columns))

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> pa.Table:
        """Return the rows of these numbers, in ascending order."""
        (found,) = self.split([np.asarray(rows)])
        return found.read()

    def head(self, count: int) -> "LongTable":
        """Return the first rows."""
        rows = next(self.pieces(count), None) if count else None
        return LongTable.of(self.schema.empty_table() if rows is None else rows)

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        """Return some columns as a query may read them, once."""
        return pa.RecordBatchReader.from_batches(self._schema_of(columns), self.batches(columns))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield some columns, so many rows at a time."""
        schema = self._schema_of(columns)
        with pq.ParquetFile(self._file) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=schema.names):
                yield batch.select(schema.names).cast(schema)

    def pieces(self, size: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield some columns of so many rows at a time, of the last ones as many as there are."""
        kept = self._schema_of(columns).empty_table()
        for batch in self.batches(columns):
            kept = pa.concat_tables([kept, pa.Table.from_batches([batch])])
            while len(kept) >= size:
                yield kept.slice(0, size).take(pa.array(range(size)))  # a slice would carry all to whom it is sent
                kept = kept.slice(size)
        if len(kept):
            yield kept.combine_chunks()

    def split(self, parts: Sequence[NDArray[np.integer]]) -> "list[LongTable]":
        """Return the rows of each part of the numbers of rows, in ascending order: reads all rows once."""
        part_of = np.full(self.num_rows, -1, np.int32)
        for number, rows in enumerate(parts):
            part_of[rows] = number
        with ExitStack() as stack:
            writers = [stack.enter_context(LongTableWriter(self.schema)) for _ in parts]
            start = 0
            for batch in self.batches():
                own = part_of[start : start + batch.num_rows]
                start += batch.num_rows
                for number in np.unique(own[own >= 0]).tolist():
                    writers[number].add(batch.filter(pa.array(own == number)))
        return [writer.finish() for writer in writers]

    def show(self, database: duckdb.DuckDBPyConnection, name: str, number: str) -> None:
        """Let a database read the table under a name, with the number of each row in a column besides."""
        file = str(self._file).replace("'", "''")
        database.execute(
            f"CREATE VIEW {name} AS SELECT * EXCLUDE (file_row_number), file_row_number AS {number} "
            f"FROM read_parquet('{file}', file_row_number = true)"
        )

    @property
    def _file(self) -> Path:
        return _file_in(self._folder)

    def _schema_of(self, columns: Sequence[str] | None) -> pa.Schema:
        return self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])


class LongTableWriter:
    """Writes rows into a temporary file, in groups of ROWS_AT_ONCE."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._rows, self._kept = schema, 0, list[pa.RecordBatch]()
        self._folder = scratch_folder()
        self._file = pq.ParquetWriter(_file_in(self._folder), schema, compression="lz4")

    def __enter__(self) -> "LongTableWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> LongTable:
        """Write what is left, and return the table of all rows; nothing is added after it."""
        self._flush()
        self._file.close()
        return LongTable(self._schema, self._rows, self._folder)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows that can be cast to the schema."""
        self._kept.append(batch)
        self._rows += batch.num_rows
        if sum(kept.num_rows for kept in self._kept) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._kept:
            with writing_scratch():
                self._file.write_table(pa.Table.from_batches(self._kept).cast(self._schema))
            self._kept = []


def _file_in(folder: Scratch) -> Path:
    return Path(folder.name) / "rows.parquet"
