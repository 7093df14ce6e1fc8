"""Ray: a local cluster by default, a running one by address. The only file that imports it."""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

import unitscope_pipelines
import unitscope_schemas
from unitscope_schemas.errors import UnitscopeError

Item = TypeVar("Item")
Result = TypeVar("Result")

_RETRIES = 20
"""How often an item runs again whose worker or node died."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
}
"""Of Ray, unless set otherwise. To a node that hangs, a request would wait for seven minutes by default."""
_START_TRIES = 3
"""Ray gives its processes half a minute to start, which cannot be set; a busy machine takes longer now and then."""
_LOOK_EVERY_S = 2.0
"""How often a run looks for nodes that joined."""


@dataclass(frozen=True)
class Resources:
    """What one worker holds, how many may run at once (None: as many as fit), and how many threads of each decode."""

    cpus: float
    gpus: float
    worker_count: int | None
    decoder_count: int = 0

    @property
    def slots(self) -> int:
        """How many workers the cluster has room for now."""
        if self.worker_count is not None:
            return self.worker_count
        total = _total()
        return max(1, int(total.get("GPU", 0) / self.gpus if self.gpus else total.get("CPU", 1) / self.cpus))


@dataclass(frozen=True)
class Done(Generic[Result]):
    """What a task returned, and the node it ran on."""

    result: Result
    node: str


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray session: the caller's if there is one, that of a running cluster, or one started and stopped here."""
    if ray.is_initialized():
        yield
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options["include_dashboard"] = False
    else:
        packages = (unitscope_schemas, unitscope_pipelines)
        options["runtime_env"] = {"py_modules": [str(Path(str(package.__file__)).parent) for package in packages]}
    for left in reversed(range(_START_TRIES)):
        try:
            ray.init(address=address or "local", **options)
            break
        except ConnectionError as error:
            raise UnitscopeError(
                f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}; is it running (ray status), and "
                "is RAY_AUTH_MODE=token set here with the cluster's token in ~/.ray/auth_token?"
            ) from None
        except Exception as error:  # Ray raises no narrower kind where its processes are late
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise UnitscopeError(
                    f"Ray did not start in {_START_TRIES} tries of half a minute: this machine is too busy or short of "
                    "memory; run again when it has less to do"
                ) from error
    try:
        yield
    finally:
        ray.shutdown()


def resources(worker_count: int | None, device: str) -> Resources:
    """One worker per GPU where there are GPUs (unless `device` is cpu), otherwise one per core."""
    total = _total()
    gpus = 0 if device == "cpu" else int(total.get("GPU", 0))
    cores = max(1, int(total.get("CPU", 1)))
    if gpus:
        share = 1.0 if worker_count is None else min(1.0, gpus / worker_count)
        return Resources(0, share, worker_count, decoder_count=max(1, cores // (worker_count or gpus)))
    return Resources(1.0 if worker_count is None else min(1.0, cores / worker_count), 0, worker_count)


def each(
    make_task: Callable[[], Callable[[Item], Result]], items: Iterable[Item], each_worker: Resources
) -> Iterator[Done[Result]]:
    """Run a task on every item, on all nodes of the cluster, and yield what is done as it comes.

    A worker process calls `make_task` once and the task for each item. Nodes that join are used; items whose worker
    or node died run again elsewhere, so a task must leave nothing behind that a second run does not replace. An
    exception in a task stops the run.
    """
    work = ray.remote(
        num_cpus=each_worker.cpus,
        num_gpus=each_worker.gpus,
        max_calls=0,  # by default Ray ends a process after each task that held a GPU, and the model with it
        max_retries=_RETRIES,
        scheduling_strategy="SPREAD",
    )(_work)
    made = [ray.put(make_task)]
    remaining, running = iter(items), list[Any]()
    try:
        while True:
            running += [work.remote(made, item) for item in islice(remaining, max(0, each_worker.slots - len(running)))]
            if not running:
                return
            finished, running = ray.wait(running, timeout=_LOOK_EVERY_S)
            for one in finished:
                yield Done(*ray.get(one))
    except RayTaskError as error:
        raise _cause(error) from error
    except RayError as error:
        raise UnitscopeError(
            f"workers or nodes died {_RETRIES} times over one item: {str(error).splitlines()[0]}; finished shards "
            "are kept, run again to resume; with little memory, use fewer --workers or a smaller --batch-size"
        ) from error
    finally:
        for one in running:
            ray.cancel(one, force=True)


def _total() -> dict[str, float]:
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return total


_tasks: dict[str, Callable[[Any], Any]] = {}
"""In a worker process: the task it made last, with its model."""


def _work(made: list[Any], item: Any) -> tuple[Any, str]:
    """Run in a worker process: the task's result for an item, and the node's name."""
    key = made[0].hex()
    if key not in _tasks:
        _tasks.clear()
        _tasks[key] = ray.get(made[0])()
    return _tasks[key](item), f"{socket.gethostname()}-{ray.get_runtime_context().get_node_id()[:6]}"


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    return cause if isinstance(cause, UnitscopeError) else UnitscopeError(f"a worker failed: {error}")
