"""Figures of a running server for Prometheus; names end in units, routes are labelled by their template."""

import os
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from unitscope_schemas.answers.patches import NeighborPage

SHARED_FIGURES = "PROMETHEUS_MULTIPROC_DIR"
"""Name of the variable that the library reads when it is imported: in that folder every process keeps its figures."""

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Telemetry:
    """The figures of one application, in a registry of its own.

    Where SHARED_FIGURES names a folder, those of all processes of a server.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.request_seconds = Histogram(
            "unitscope_request_seconds",
            "Time from a request's arrival to the end of its answer",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.responses = Counter(
            "unitscope_responses_total", "Answers by status", ["method", "route", "status"], registry=self.registry
        )
        self.response_bytes = Counter(
            "unitscope_response_bytes_total", "Bytes of answers' bodies", ["route"], registry=self.registry
        )
        self.search_seconds = Histogram(
            "unitscope_search_seconds",
            "Time to find the nearest patches of one picture or vector, by whether the search was exact",
            ["exact"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.live_seconds = Histogram(
            "unitscope_live_frame_seconds",
            "Time to answer one live frame, its wait for a turn included",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.forwards = Gauge(
            "unitscope_forwards_present_count",
            "Forwards that run or wait",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.uploads = Gauge(
            "unitscope_uploads_bytes", "Memory held by uploads", registry=self.registry, multiprocess_mode="mostrecent"
        )
        self.atlases = Gauge(
            "unitscope_atlases_count", "Atlases that are served", registry=self.registry, multiprocess_mode="mostrecent"
        )

    def answered(self, method: str, route: str, status: int, seconds: float, size_bytes: int) -> None:
        """Count one answer."""
        self.request_seconds.labels(method, route).observe(seconds)
        self.responses.labels(method, route, str(status)).inc()
        self.response_bytes.labels(route).inc(size_bytes)

    def timed(self, search: Callable[[], NeighborPage]) -> NeighborPage:
        """Return what a search finds; its time is counted."""
        started = time.perf_counter()
        page = search()
        self.search_seconds.labels("yes" if page.search.exact else "no").observe(time.perf_counter() - started)
        return page

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        if SHARED_FIGURES not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
