"""A database that joins and sorts more rows than memory should hold: what it does not hold goes to temporary files."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import duckdb
import pyarrow as pa

from unitscope_pipelines.storage.long_tables.long_table import ROWS_AT_ONCE
from unitscope_pipelines.storage.long_tables.scratch import scratch_folder, writing_scratch

MEMORY_BYTES = 500_000_000
"""Memory that a join or sort takes before it goes on in temporary files."""
_MOST_THREADS = 4


@contextmanager
def spilling_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database of this process: what its memory does not hold goes to temporary files."""
    with scratch_folder() as folder, writing_scratch():
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{MEMORY_BYTES}B",
            "temp_directory": folder,
            "threads": str(min(_MOST_THREADS, os.cpu_count() or 1)),
        }
        with duckdb.connect(":memory:", config=config) as database:
            yield database


def take_in(database: duckdb.DuckDBPyConnection, name: str, query: str, parts: Iterable[pa.Table]) -> int:
    """Make a table of rows, all of one schema, by a query over `parts`, which are read as it goes; return its length.

    Raises ValueError where there is no part, and what reading the parts raises.
    """
    found, faults = iter(parts), list[Exception]()
    first = next(found, None)
    if first is None:
        raise ValueError(f"nothing to take into {name}")

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for part in chain([first], found):
                yield from part.cast(first.schema).to_batches()
        except Exception as error:
            faults.append(error)
            raise

    database.register("parts", pa.RecordBatchReader.from_batches(first.schema, batches()))
    try:
        database.execute(f"CREATE TABLE {name} AS {query}")
    except duckdb.Error:
        if faults:
            raise faults[0] from None
        raise
    database.unregister("parts")
    return count_of(database, name)


def batches_of(database: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    """Yield what a query finds, so many rows at a time; meanwhile the connection answers nothing else."""
    yield from database.sql(query).to_arrow_reader(ROWS_AT_ONCE)


def rows_of(database: duckdb.DuckDBPyConnection, query: str) -> Iterator[dict[str, Any]]:
    """Yield the rows that a query finds as Python objects; meanwhile the connection answers nothing else."""
    for batch in batches_of(database, query):
        yield from batch.to_pylist()


def tables_of(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield rows of Python objects as tables, so many at a time; where there are none, a table without rows."""
    found = iter(rows)
    yield pa.Table.from_pylist(list(islice(found, ROWS_AT_ONCE)), schema)
    while some := list(islice(found, ROWS_AT_ONCE)):
        yield pa.Table.from_pylist(some, schema)


def count_of(database: duckdb.DuckDBPyConnection, rows: str) -> int:
    """Count the rows of a table, or of what may stand behind FROM."""
    (count,) = database.execute(f"SELECT count(*) FROM {rows}").fetchall()[0]
    return int(count)
