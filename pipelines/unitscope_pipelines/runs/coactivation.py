"""Units are compared by many processes: on Ray, or in this one where a cluster would take longer to start."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from unitscope_pipelines.cluster.resources import resources
from unitscope_pipelines.cluster.session import connected
from unitscope_pipelines.cluster.workers import each
from unitscope_pipelines.derived.coactivation import CoactivationPlan, Correlator, InProcess, TileCoactivation, UnitTile
from unitscope_schemas.progress import Progress, Report

_PRODUCTS_IN_PROCESS = 5_000_000_000
"""Count of products of two numbers up to which no cluster is started: 320 × 320 units on 10,000 images are a fifth of
it and took one core a second."""


@dataclass(frozen=True)
class OnCluster:
    """A run that compares tiles on a local cluster or, with `address`, on a running one; in this process if that takes
    seconds."""

    report: Report
    workers: int | None = None
    address: str | None = None

    def __call__(self, plan: CoactivationPlan, tiles: Sequence[UnitTile]) -> Iterator[TileCoactivation]:
        """Compare tiles, and report how many blocks of units are done."""
        if self.address is None and sum(map(plan.products, tiles)) <= _PRODUCTS_IN_PROCESS:
            yield from InProcess(self._tell)(plan, tiles)
            return
        total, finished, nodes = sum(map(plan.steps, tiles)), 0, Counter[str]()
        self._tell(0, total)
        with connected(self.address):
            for done in each(partial(Correlator, plan), tiles, resources(self.workers, "cpu")):
                yield done.result  # stored, if it completes a pair of layers, before it is told
                finished += plan.steps(done.result.tile)
                nodes[done.node] += plan.steps(done.result.tile)
                self._tell(finished, total, nodes)

    def _tell(self, done: int, total: int, nodes: Counter[str] | None = None) -> None:
        self.report(Progress("correlate", done, total, "blocks of units", dict(nodes or {})))
