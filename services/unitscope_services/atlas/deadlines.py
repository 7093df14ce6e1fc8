"""Time limits: of a question, checked between its steps, and of database statements, kept by one thread for all."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import duckdb

from unitscope_schemas.errors import BusyError

_IDLE_S = 2.0
"""Seconds without statements after which the watching thread ends; the next statement starts another."""


class _Limit(NamedTuple):
    """The time limit of a question: until when it may run, how long that is, and what would do."""

    until_s: float
    limit_s: float
    advice: str


_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)


@contextmanager
def question_limit(limit_s: float, advice: str) -> Iterator[None]:
    """Let what runs within the context take so many seconds; `advice` says what would do where it takes longer.

    Within another limit, the one that ends first counts.
    """
    limit, outer = _Limit(time.monotonic() + limit_s, limit_s, advice), _limit.get()
    token = _limit.set(outer if outer is not None and outer.until_s < limit.until_s else limit)
    try:
        yield
    finally:
        _limit.reset(token)


def check_time() -> None:
    """Raise BusyError where the question has had its time: all that takes long calls this between its steps."""
    limit = _limit.get()
    if limit is not None and time.monotonic() >= limit.until_s:
        raise BusyError(f"this question takes longer than {limit.limit_s:g} s; {limit.advice}")


class Deadlines:
    """A time limit that interrupts statements which take longer than `timeout_s`.

    A thread per statement, as `threading.Timer` is, costs more than a short statement itself.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._step_s = min(0.1, timeout_s / 4)
        self._lock = threading.Lock()
        self._running: dict[int, tuple[float, duckdb.DuckDBPyConnection]] = {}
        self._watcher: threading.Thread | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the watching thread: alive at the interpreter's end it would keep DuckDB from unloading cleanly."""
        self._stopped.set()
        if watcher := self._watcher:
            watcher.join()

    @contextmanager
    def over(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Limit what the cursor does within the context."""
        key, limit = id(cursor), _limit.get()
        until_s = time.monotonic() + self.timeout_s
        with self._lock:
            self._running[key] = (until_s if limit is None else min(until_s, limit.until_s), cursor)
            if self._watcher is None and not self._stopped.is_set():
                self._watcher = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._watcher.start()
        try:
            yield
        finally:
            with self._lock:
                del self._running[key]

    def _watch(self) -> None:
        """Interrupt statements that are due, until there have been none for a while."""
        busy_s = time.monotonic()
        while not self._stopped.wait(self._step_s):
            now = time.monotonic()
            with self._lock:
                if self._running:
                    busy_s = now
                elif now - busy_s > _IDLE_S:
                    self._watcher = None
                    return
                for due_s, cursor in self._running.values():
                    if due_s <= now:
                        cursor.interrupt()
