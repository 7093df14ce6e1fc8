"""The figures of an index run for Prometheus, at an address of their own while it runs; names end in units."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from unitscope_schemas.errors import UsageError

if TYPE_CHECKING:
    from unitscope_schemas.progress import Progress


class IndexFigures:
    """The figures of one run, in a registry of its own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge

        self.registry = CollectorRegistry()
        self._stage_started = Gauge(
            "unitscope_index_stage_started_seconds",
            "When the stage began, in seconds since 1970; the youngest is under way",
            ["stage"],
            registry=self.registry,
        )
        self._stage_done = Gauge(
            "unitscope_index_stage_done_ratio", "Share of the stage that is done", ["stage"], registry=self.registry
        )
        self._files = Counter(
            "unitscope_index_files_total", "Files that are done, usable or not", registry=self.registry
        )
        self._skipped = Counter(
            "unitscope_index_skipped_files_total", "Files that are no usable picture", registry=self.registry
        )
        self._rows = Counter("unitscope_index_rows_total", "Peaks that are written", registry=self.registry)
        self._pending = Gauge("unitscope_index_pending_files_count", "Files still to scan", registry=self.registry)
        self._seen: dict[str, Progress] = {}

    def __call__(self, progress: "Progress") -> None:
        """Take note of how far the run has come."""
        before = self._seen.get(progress.stage)
        if before is None:
            self._stage_started.labels(progress.stage).set(time.time())
        self._stage_done.labels(progress.stage).set(progress.done / progress.total if progress.total else 1.0)
        if progress.stage in ("scan", "again"):
            self._files.inc(progress.done - (before.done if before else 0))
            self._skipped.inc(progress.skipped - (before.skipped if before else 0))
            self._rows.inc(progress.rows - (before.rows if before else 0))
            self._pending.set(progress.total - progress.done)
        self._seen[progress.stage] = progress


@contextmanager
def published(
    report: "Callable[[Progress], None]", host: str, port: int | None
) -> "Iterator[Callable[[Progress], None]]":
    """Yield the given report, which also fills the figures at http:

    host:port/metrics; without a port just the report.

    Raises UsageError if the address is taken.
    """
    if port is None:
        yield report
        return
    from prometheus_client import start_http_server

    figures = IndexFigures()
    try:
        server, thread = start_http_server(port, host, figures.registry)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}; choose another --metrics-port") from None

    def tell(progress: "Progress") -> None:
        figures(progress)
        report(progress)

    try:
        yield tell
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
