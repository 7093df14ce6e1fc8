"""Ray: a local cluster by default, a running one by address. The only file that imports it."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool

from schemas.errors import UnitscopeError

Item = TypeVar("Item")
Result = TypeVar("Result")

_RESTARTS = 10
"""How often a worker process that died is started anew; its unfinished item runs again."""


@dataclass(frozen=True)
class Resources:
    """What one worker holds, how many workers fit into the cluster, and how many threads of each decode."""

    cpus: float
    gpus: float
    worker_count: int
    decoder_count: int = 0


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A Ray session: the caller's if there is one, that of a running cluster, or one started and stopped here."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options["include_dashboard"] = False
    else:
        packages = Path(__file__).parent.parent
        options["runtime_env"] = {"py_modules": [str(packages / name) for name in ("schemas", "pipelines")]}
    try:
        ray.init(address=address or "local", **options)
    except ConnectionError as error:
        raise UnitscopeError(
            f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}; is it running (ray status), and "
            "is RAY_AUTH_MODE=token set here with the cluster's token in ~/.ray/auth_token?"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def resources(worker_count: int | None, device: str) -> Resources:
    """One worker per GPU where there are GPUs (unless `device` is cpu), otherwise one per core."""
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = 0 if device == "cpu" else int(total.get("GPU", 0))
    cores = max(1, int(total.get("CPU", 1)))
    count = worker_count or gpus or cores
    if gpus:
        return Resources(0, min(1.0, gpus / count), count, decoder_count=max(1, cores // count))
    return Resources(cpus=min(1.0, cores / count), gpus=0, worker_count=count)


def each(
    make_task: Callable[[], Callable[[Item], Result]], items: Iterable[Item], each_worker: Resources
) -> Iterator[Result]:
    """Run a task on every item and yield results as they come.

    Each worker calls `make_task` once and the task once per item. A worker that dies is restarted and its item
    run again, so a task must leave nothing behind that a second run does not replace. An exception in a task
    stops the run.
    """
    items = list(items)
    count = min(each_worker.worker_count, len(items))
    if not count:
        return
    worker = ray.remote(
        num_cpus=each_worker.cpus, num_gpus=each_worker.gpus, max_restarts=_RESTARTS, max_task_retries=_RESTARTS
    )(_Worker)
    workers = [worker.remote() for _ in range(count)]
    made = [ray.put(make_task)]
    try:
        pool = ActorPool(workers)
        yield from pool.map_unordered(lambda actor, item: actor.run.remote(made, item), items)
    except RayTaskError as error:
        raise _cause(error) from error
    except RayActorError as error:
        raise UnitscopeError(
            f"workers died more than {_RESTARTS} times: {str(error).splitlines()[0]}; finished shards are kept, "
            "run again to resume; with little memory, use fewer --workers or a smaller --batch-size"
        ) from error
    finally:
        for actor in workers:
            ray.kill(actor)  # type: ignore[arg-type]


class _Worker:
    """Makes its task at the first item: a restarted worker has no constructor arguments that could be lost."""

    task: Callable[[Any], Any] | None = None

    def run(self, made: list[Any], item: Any) -> Any:
        if self.task is None:
            self.task = ray.get(made[0])()
        return self.task(item)


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    return cause if isinstance(cause, UnitscopeError) else UnitscopeError(f"a worker failed: {error}")
