"""What a cluster has, and what the workers of a run take of it."""

from dataclasses import dataclass

from unitscope_pipelines.cluster import session
from unitscope_schemas.errors import UsageError


@dataclass(frozen=True)
class Resources:
    """What the workers of a run take."""

    cpus: float
    """Count of cores that one worker holds."""
    gpus: float
    """Count of GPUs that one worker holds."""
    worker_count: int | None
    """Count of workers that may run at once, None: as many as fit."""
    decoder_count: int = 0
    """Count of threads that decode in each worker."""

    @property
    def slots(self) -> int:
        """The count of workers that the cluster has room for now."""
        if self.worker_count is not None:
            return self.worker_count
        total = session.total_resources()
        return max(1, int(total.get("GPU", 0) / self.gpus if self.gpus else total.get("CPU", 1) / self.cpus))


def resources(worker_count: int | None, device: str) -> Resources:
    """Return what workers take: one per GPU where there are GPUs (unless `device` is cpu), otherwise one per core.

    More workers than GPUs share them, as many on each; what is left over is not used. Raises UsageError where a GPU is
    asked for and the cluster has none.
    """
    total = session.total_resources()
    gpus = 0 if device == "cpu" else int(total.get("GPU", 0))
    cores = max(1, int(total.get("CPU", 1)))
    if device == "cuda" and not gpus and total:
        raise UsageError("device 'cuda' is not available: no node of the cluster has a GPU; use --device cpu")
    if gpus:
        on_each = max(1, (worker_count or gpus) // gpus)
        count = None if worker_count is None else min(worker_count, on_each * gpus)
        return Resources(0, 1 / on_each, count, decoder_count=max(1, cores // (count or gpus)))
    return Resources(1.0 if worker_count is None else min(1.0, cores / worker_count), 0, worker_count)


def has_gpus(address: str) -> bool:
    """Return whether the cluster at an address has a GPU; raises UnitscopeError where none answers."""
    with session.connected(address):
        return session.total_resources().get("GPU", 0) > 0
