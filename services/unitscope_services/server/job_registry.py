"""The registry of jobs: what all processes of a server know of them, whichever runs them."""

import threading
import time
from dataclasses import dataclass
from typing import get_args

from unitscope_pipelines.storage.processes import is_alive
from unitscope_schemas.answers.jobs import Job, JobState
from unitscope_schemas.errors import NotFoundError, OverloadError
from unitscope_services.server.access.readers import is_seen
from unitscope_services.server.settings import Settings

_ENDED: tuple[JobState, ...] = get_args(JobState)[2:]
_LOST = "the process that ran it has ended; what it had stored is kept, ask again for the rest"


@dataclass
class _JobEntry:
    """A job, who asked for it, the process that runs it, when it began to run, and whether it is to stop."""

    job: Job
    owner: str
    process: int
    started: float = 0.0
    cancelled: bool = False


class JobRegistry:
    """Jobs by id; those that ended are remembered until newer ones push them out.

    A job is there for whoever `sees` its owner, as `Reader` says it, and for all others as if it were not.
    """

    def __init__(self, settings: Settings) -> None:
        self._running, self._waiting = settings.jobs_running, settings.jobs_waiting
        self._most_ended = settings.jobs_kept
        self._entries: dict[str, _JobEntry] = {}
        self._lock = threading.Lock()

    def take(self, job: Job, owner: str, process: int) -> None:
        """Note a job that a process will run; raises OverloadError if too many of it wait."""
        with self._lock:
            jobs = [entry.job for entry in self._entries.values() if entry.process == process]
            present = sum(not has_ended(other) for other in jobs)
            if present >= self._running + self._waiting:
                raise OverloadError(f"{present} jobs run or wait already; ask again when one of them has ended")
            self._entries[job.id] = _JobEntry(job, owner, process)
            self._forget()

    def find(self, name: str, sees: str | None) -> Job:
        """Return a job as it stands; raises NotFoundError."""
        with self._lock:
            return self._entry(name, sees).job

    def all(self, sees: str | None) -> list[Job]:
        """Return all jobs that are remembered, the newest first."""
        with self._lock:
            names = [name for name, entry in self._entries.items() if is_seen(entry.owner, sees)]
            return [self._entry(name, sees).job for name in reversed(names)]

    def change(self, name: str, **changed: object) -> bool:
        """Note how far a job is; returns whether it is to go on."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                return False
            if changed.get("state") == "running":
                entry.started = time.monotonic()
            self._change(entry, **changed)
            return not entry.cancelled

    def cancel(self, name: str, sees: str | None) -> Job:
        """Have a job stop before its next step; what it has stored stays. A job that has ended stays as it is."""
        with self._lock:
            entry = self._entry(name, sees)
            entry.cancelled = True
            if entry.job.state == "waiting":
                self._change(entry, state="cancelled")
            return entry.job

    def stop(self, process: int) -> None:
        """Cancel all jobs of a process."""
        with self._lock:
            jobs = [entry.job.id for entry in self._entries.values() if entry.process == process]
        for name in jobs:
            self.cancel(name, sees=None)

    def _entry(self, name: str, sees: str | None) -> _JobEntry:
        entry = self._entries.get(name)
        if entry is None or not is_seen(entry.owner, sees):
            raise NotFoundError(f"no job {name!r} is known; it may have ended long ago or before the server began")
        if not has_ended(entry.job) and not is_alive(entry.process):
            self._change(entry, state="failed", problem=_LOST)
        return entry

    def _change(self, entry: _JobEntry, **changed: object) -> None:
        if not has_ended(entry.job):
            seconds = round(time.monotonic() - entry.started, 3) if entry.started else 0.0
            entry.job = entry.job.model_copy(update={**changed, "seconds": seconds})

    def _forget(self) -> None:
        ended = [name for name, entry in self._entries.items() if has_ended(entry.job)]
        for name in ended[: max(0, len(ended) - self._most_ended)]:
            del self._entries[name]


def has_ended(job: Job) -> bool:
    """Return whether a job will not change any more."""
    return job.state in _ENDED
