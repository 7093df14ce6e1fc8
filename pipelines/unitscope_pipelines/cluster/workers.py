"""Workers of the cluster: processes that each hold their cores or their GPU, and work on what a run has to do."""

import logging
import math
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from unitscope_pipelines.cluster import session
from unitscope_pipelines.cluster.resources import Resources
from unitscope_schemas.errors import UnitscopeError

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logging.getLogger("unitscope")
_RETRIES = 20
"""Count of times that an item runs again whose worker or node died."""
_JOIN_INTERVAL_S = 2.0
"""Seconds between two looks for nodes that joined."""
_TOLD_AFTER_S = 30.0
"""Seconds without any worker after which a person is told."""
_UNDER_WAY = 2
"""Count of calls that each worker has at a time, so that none waits for this process, and of those that it may run at
a time."""
_CALL_S = 0.5
"""Seconds that a call of many small items should take; each call costs this process and the worker a millisecond."""
_MOST_ITEMS = 64
"""Count of items of one call, at most: all of them run again if their worker dies."""


@dataclass(frozen=True)
class TaskResult(Generic[Result]):
    """What a task returned, and the name of the node it ran on."""

    result: Result
    node: str


def each(
    make_task: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    each_worker: Resources,
    overlaps: bool = False,
) -> Iterator[TaskResult[Result]]:
    """Run a task on every item, on all nodes of the cluster, and yield what is done as it comes.

    A worker calls `make_task` once and the task for each item. Small items go to it several at a time. Nodes that join
    are used; items whose worker or node died run again elsewhere, so a task must leave nothing behind that a second run
    does not replace. An exception in a task stops the run. A task that `overlaps` is called by two threads at a time,
    and says itself what of it has to wait for what.
    """
    crew: _Crew[Item, Result] = _Crew(make_task, each_worker, overlaps)
    left = iter(items)
    try:
        while True:
            crew.give(left)
            if not crew.is_busy:
                break
            session.check_head()
            yield from crew.wait()
        crew.rest()
    except RayTaskError as error:
        raise _cause(error) from error
    except RayError as error:
        session.wait_for_loss()
        raise UnitscopeError(
            f"workers or nodes died {_RETRIES} times over one item: {str(error).splitlines()[0]}; finished shards "
            "are kept, run again to resume; with little memory, use fewer --workers or a smaller --batch-size"
        ) from error
    finally:
        crew.end()


class WorkerProcess:
    """What runs in a worker: it holds the task that it made last, with its model, and its GPU as long as it lives."""

    def __init__(self) -> None:
        if not ray.get_gpu_ids():
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # others' cards, which torch would take the first of
        self._key = ""
        self._task: Callable[[Any], Any] | None = None
        self._making = threading.Lock()
        self._node = f"{socket.gethostname()}-{ray.get_runtime_context().get_node_id()[:6]}"

    def run(self, make: list[Any], items: list[Any]) -> tuple[str, list[Any], float]:
        """Run a task on some items; return the node, what it returned, and the seconds that it took."""
        with self._making:
            if self._key != (key := make[0].hex()):
                self._key, self._task = "", None  # one model at a time
                self._task = ray.get(make[0])()
                self._key = key
            task = self._task
        assert task is not None, "it was made for this key"
        started = time.monotonic()
        return self._node, [task(item) for item in items], time.monotonic() - started


@dataclass(eq=False)
class _Worker:
    """A worker as this process sees it."""

    process: Any
    ready: Any
    """Reference that is there once the process is."""
    is_ready: bool = False
    calls: list[Any] = field(default_factory=list)
    """References of the calls that are under way."""


@dataclass(frozen=True)
class _Tried(Generic[Item]):
    item: Item
    times: int = 0


_Shape = tuple[float, float, int]
"""Cores and GPUs that a worker holds, and the count of calls that it runs at a time."""


class _Idle:
    """Workers that have nothing to do until the next stage of a run: they keep what they have imported."""

    def __init__(self) -> None:
        self._workers: dict[_Shape, list[_Worker]] = {}
        self._lock = threading.Lock()

    def take(self, shape: _Shape) -> list[_Worker]:
        """Return those of the shape that is wanted, and end others: they hold what is needed."""
        with self._lock:
            found = self._workers.pop(shape, [])
            others, self._workers = self._workers, {}
        for worker in (worker for workers in others.values() for worker in workers):
            ray.kill(worker.process)
        return found

    def give_back(self, shape: _Shape, workers: Iterable[_Worker]) -> None:
        """Let workers wait."""
        with self._lock:
            self._workers.setdefault(shape, []).extend(workers)

    def end(self) -> None:
        """End all of them."""
        self.take((-1, -1, 0))


_idle = _Idle()
session.at_end.append(_idle.end)


class _Crew(Generic[Item, Result]):
    """The workers of one stage of a run."""

    def __init__(
        self, make_task: Callable[[], Callable[[Item], Result]], each_worker: Resources, overlaps: bool
    ) -> None:
        at_once = _UNDER_WAY if overlaps else 1
        self._each, self._shape = each_worker, (each_worker.cpus, each_worker.gpus, at_once)
        self._make = [ray.put(make_task)]
        self._hire = ray.remote(WorkerProcess).options(
            num_cpus=each_worker.cpus,
            num_gpus=each_worker.gpus,
            max_restarts=0,
            max_concurrency=at_once,
            scheduling_strategy="SPREAD",
        )
        self._workers = _idle.take(self._shape)
        self._again: deque[_Tried[Item]] = deque()
        self._given: dict[Any, tuple[_Worker, list[_Tried[Item]]]] = {}
        self._lost = 0
        self._looked_s, self._began_s = -math.inf, time.monotonic()
        self._wanted, self._is_told = 0, False
        self._item_s: float | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something is still to be done."""
        return bool(self._given or self._again)

    def give(self, left: Iterator[Item]) -> None:
        """Give every worker that is there something to do, as long as something is left."""
        self._enlist()
        for worker in self._workers[: self._wanted]:
            while worker.is_ready and len(worker.calls) < _UNDER_WAY:
                items = [self._again.popleft()] if self._again else [_Tried(item) for item in islice(left, self._count)]
                if not items:
                    return
                call = worker.process.run.remote(self._make, [tried.item for tried in items])
                worker.calls.append(call)
                self._given[call] = worker, items
        if not self._given and not self._again:  # no worker is there yet: is anything to be done?
            self._again.extend(_Tried(item) for item in islice(left, 1))

    def wait(self) -> Iterator[TaskResult[Result]]:
        """Wait for what is done next, and yield it; workers that are lost leave their items to others."""
        starting = {worker.ready: worker for worker in self._workers if not worker.is_ready}
        if len(starting) == len(self._workers):
            self._tell_what_is_missing()
        finished, _ = ray.wait([*self._given, *starting], timeout=_JOIN_INTERVAL_S)
        for reference in finished:
            worker = starting.get(reference)
            try:
                if worker is not None:
                    ray.get(reference)
                    worker.is_ready = True
                    continue
                node, results, seconds = ray.get(reference)
            except RayTaskError:
                raise
            except RayError as error:
                self._lose(worker or self._given[reference][0], error)
                return
            worker, items = self._given.pop(reference)
            worker.calls.remove(reference)
            own = seconds / len(items)
            self._item_s = own if self._item_s is None else (self._item_s + own) / 2
            yield from (TaskResult(result, node) for result in results)

    def rest(self) -> None:
        """Let the workers wait for the next stage, unless others may want what they hold."""
        if session.is_alone():
            _idle.give_back(self._shape, (worker for worker in self._workers if worker.is_ready))
            self._workers = [worker for worker in self._workers if not worker.is_ready]

    def end(self) -> None:
        """End what is still there."""
        for worker in self._workers:
            ray.kill(worker.process)
        self._workers = []

    @property
    def _count(self) -> int:
        """The count of items of one call."""
        if self._item_s is None:
            return 1
        return max(1, min(_MOST_ITEMS, int(_CALL_S / max(self._item_s, 1e-9))))

    def _enlist(self) -> None:
        """Start workers where the cluster has room for more than there are."""
        if time.monotonic() - self._looked_s > _JOIN_INTERVAL_S:
            self._looked_s, self._wanted = time.monotonic(), self._each.slots
        while len(self._workers) < self._wanted:
            process: Any = self._hire.remote()
            self._workers.append(_Worker(process, process.__ray_ready__.remote()))

    def _tell_what_is_missing(self) -> None:
        """Say once, after a while, that nothing is done yet because no worker can start."""
        if self._is_told or time.monotonic() - self._began_s < _TOLD_AFTER_S:
            return
        self._is_told = True
        total = session.total_resources()
        what = f"{self._each.gpus:g} of {total.get('GPU', 0):g} GPUs" if self._each.gpus else ""
        what = what or f"{self._each.cpus:g} of {total.get('CPU', 0):g} cores"
        _log.warning("no worker has started yet: each takes %s, which other runs may hold; waiting for them", what)

    def _lose(self, worker: _Worker, error: RayError) -> None:
        """Let others do what a worker had to do that is gone; raises its error if that happened too often."""
        self._lost += 1
        items = [tried for call in worker.calls for tried in self._given.pop(call)[1]]
        self._workers.remove(worker)
        ray.kill(worker.process)
        self._again.extend(_Tried(tried.item, tried.times + 1) for tried in items)
        if any(tried.times >= _RETRIES for tried in items) or (not items and self._lost > _RETRIES):
            raise error


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    return cause if isinstance(cause, UnitscopeError) else UnitscopeError(f"a worker failed: {error}")
