"""The registry of jobs: what all processes of a server know of them, whichever runs them."""

import os
import threading
import time
from dataclasses import dataclass
from typing import get_args

from unitscope_schemas.answers.jobs import Job, JobState
from unitscope_schemas.errors import NotFoundError, OverloadError
from unitscope_services.server.settings import Settings

_ENDED: tuple[JobState, ...] = get_args(JobState)[2:]
_LOST = "the process that ran it has ended; what it had stored is kept, ask again for the rest"


@dataclass
class _JobEntry:
    """A job, the process that runs it, when it began to run, and whether somebody wished that it stops."""

    job: Job
    process: int
    started: float = 0.0
    cancelled: bool = False


class JobRegistry:
    """Jobs by id; those that ended are remembered until newer ones push them out."""

    def __init__(self, settings: Settings) -> None:
        self._running, self._waiting = settings.jobs_running, settings.jobs_waiting
        self._most_ended = settings.jobs_kept
        self._entries: dict[str, _JobEntry] = {}
        self._lock = threading.Lock()

    def take(self, job: Job, process: int) -> None:
        """Note a job that a process will run; raises OverloadError if too many of it wait."""
        with self._lock:
            jobs = [entry.job for entry in self._entries.values() if entry.process == process]
            present = sum(not has_ended(other) for other in jobs)
            if present >= self._running + self._waiting:
                raise OverloadError(f"{present} jobs run or wait already; ask again when one of them has ended")
            self._entries[job.id] = _JobEntry(job, process)
            self._forget()

    def find(self, name: str) -> Job:
        """Return a job as it stands; raises NotFoundError."""
        with self._lock:
            return self._entry(name).job

    def all(self) -> list[Job]:
        """Return all jobs that are remembered, the newest first."""
        with self._lock:
            return [self._entry(name).job for name in reversed(self._entries)]

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

    def cancel(self, name: str) -> Job:
        """Have a job stop before its next step; what it has stored stays. A job that has ended stays as it is."""
        with self._lock:
            entry = self._entry(name)
            entry.cancelled = True
            if entry.job.state == "waiting":
                self._change(entry, state="cancelled")
            return entry.job

    def stop(self, process: int) -> None:
        """Cancel all jobs of a process."""
        with self._lock:
            jobs = [entry.job.id for entry in self._entries.values() if entry.process == process]
        for name in jobs:
            self.cancel(name)

    def _entry(self, name: str) -> _JobEntry:
        if name not in self._entries:
            raise NotFoundError(f"no job {name!r} is known; it may have ended long ago or before the server began")
        entry = self._entries[name]
        if not has_ended(entry.job) and not _lives(entry.process):
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


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
