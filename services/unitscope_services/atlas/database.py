"""DuckDB over the parts of one atlas: read-only, nothing outside it, a time limit for every statement."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from unitscope_pipelines.storage.stores import Store
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError, BusyError
from unitscope_services.atlas.deadlines import Deadlines, check_time

_ALONE: dict[str, str | bool | int | float | list[str]] = {
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
}
"""How DuckDB opens a file that may be someone else's: as it is, without fetching what could read another kind."""
_VIEWS = "SELECT view_name FROM duckdb_views() WHERE database_name = ? AND NOT internal"
"""Views in the place of tables: they could ask for more than their own file."""


class Database:
    """DuckDB over the parts of an atlas: answers statements from any thread.

    Raises AtlasError where a part is missing or damaged. A statement that takes longer than `timeout_s` raises
    BusyError (None: as long as it takes).
    """

    def __init__(self, store: Store, first_ranks: Part, timeout_s: float | None = None) -> None:
        self._name = store.name
        self._held = store.hold(first_ranks)
        self._deadlines = None if timeout_s is None else Deadlines(timeout_s)
        self._threads = threading.local()
        self._connection = duckdb.connect(":memory:", config=_ALONE)
        where, file = f"part {first_ranks.path} of atlas {store.address}", _quoted(self._held.path)
        try:
            self._connection.execute(f"ATTACH '{file}' AS hot (READ_ONLY, TYPE duckdb)")
            views = self._connection.execute(_VIEWS, ["hot"]).fetchall()
        except duckdb.Error as error:
            raise AtlasError(f"{where} is missing or damaged: {error}") from None
        if views:
            raise AtlasError(f"{where} is damaged: {views[0][0]!r} is a view")
        self._connection.execute("SET GLOBAL threads = 1")  # questions are short, and many come at once
        self._connection.execute("SET GLOBAL parquet_metadata_cache = true")
        self._connection.execute("SET GLOBAL validate_external_file_cache = 'NO_VALIDATION'")  # parts never change
        folder = _quoted(self._held.path.resolve().parent)
        self._connection.execute(f"SET GLOBAL allowed_directories = ['{folder}/']")
        self._connection.execute("SET GLOBAL enable_external_access = false")
        self._connection.execute("SET GLOBAL lock_configuration = true")

    def columns(self, statement: str, parameters: list[Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the columns of a statement's result, by name."""
        with self._result(statement, parameters) as result:
            columns: dict[str, np.ndarray[Any, Any]] = result.fetchnumpy()
            return columns

    def prepared(self, statement: str, numbers: Sequence[int]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the columns of a statement that each thread prepares once; its parameters $1, $2 … are integers."""
        if statement not in self._prepared:
            name = self._prepared[statement] = f"prepared_{len(self._prepared)}"
            self._cursor.execute(f"PREPARE {name} AS {statement}")
        return self.columns(f"EXECUTE {self._prepared[statement]}({', '.join(map(str, map(int, numbers)))})", [])

    def close(self) -> None:
        """End the thread that keeps the time limit; what is still referenced stays usable without limit."""
        if self._deadlines:
            self._deadlines.stop()

    @contextmanager
    def _result(self, statement: str, parameters: list[Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a statement's result; DuckDB computes while it is fetched, so the time limit covers that too."""
        cursor = self._cursor
        try:
            with self._deadlines.over(cursor) if self._deadlines else nullcontext():
                yield cursor.execute(statement, parameters)
        except duckdb.InterruptException:
            check_time()
            limit = self._deadlines.timeout_s if self._deadlines else 0
            raise BusyError(f"this question takes longer than {limit:g} s; ask for less, or ask again later") from None
        except duckdb.Error as error:
            raise AtlasError(f"a part of atlas {self._name} is missing or damaged: {error}") from None

    @property
    def _prepared(self) -> dict[str, str]:
        """Names of the statements that this thread's cursor has prepared."""
        if not hasattr(self._threads, "prepared"):
            self._threads.prepared = {}
        prepared: dict[str, str] = self._threads.prepared
        return prepared

    @property
    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """This thread's cursor: one cursor answers one statement at a time."""
        if not hasattr(self._threads, "cursor"):
            self._threads.cursor = self._connection.cursor()
            self._threads.cursor.execute("SET search_path = 'hot.main'")
        cursor: duckdb.DuckDBPyConnection = self._threads.cursor
        return cursor


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
