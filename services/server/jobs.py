"""The job room: work that takes minutes, so many at a time, each with progress, an end, and a way to stop it."""

import logging
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import get_args

from schemas.errors import NotFoundError, OverloadError, UnitscopeError
from schemas.jobs import Job, JobQuery, JobState
from services.answers.subjects import Asked
from services.server.kinds import KINDS
from services.server.problems import without_paths
from services.server.settings import Settings

_log = logging.getLogger("unitscope")
_ENDED: tuple[JobState, ...] = get_args(JobState)[2:]
_FAILED = "the server failed; its log has the reason under the job's id"


class _Cancelled(Exception):  # noqa: N818  (somebody wished it)
    """The job was cancelled."""


class _Entry:
    """A job, whether it is to stop, and when it began to run."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.started = 0.0
        self.cancelled = threading.Event()


class Jobs:
    """Runs jobs in threads of its own; those that ended are remembered until newer ones push them out."""

    def __init__(self, settings: Settings) -> None:
        self._running, self._waiting = settings.jobs_running, settings.jobs_waiting
        self._kept = settings.jobs_kept
        self._threads = ThreadPoolExecutor(self._running, thread_name_prefix="job")
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def add(self, query: JobQuery, asked: Asked, *others: Asked) -> Job:
        """Take a job that is done later; raises what is wrong with it, and OverloadError if too many wait.

        `others`: the atlases that the query names besides its own.
        """
        kind = KINDS[query.kind]
        kind.check(asked, query, *others)
        job = Job(
            id=uuid.uuid4().hex,
            kind=query.kind,
            atlas=query.atlas,
            state="waiting",
            done=0,
            total=0,
            unit=kind.unit,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0.0,
            problem=None,
            results=(),
            query=query,
        )
        entry = _Entry(job)
        with self._lock:
            present = sum(other.job.state not in _ENDED for other in self._entries.values())
            if present >= self._running + self._waiting:
                raise OverloadError(f"{present} jobs run or wait already; ask again when one of them has ended")
            self._entries[job.id] = entry
            self._forget()
        self._threads.submit(self._run, entry, asked, *others)
        return job

    def find(self, name: str) -> Job:
        """A job as it stands; raises NotFoundError."""
        return self._entry(name).job

    def all(self) -> list[Job]:
        """All jobs that are remembered, the newest first."""
        with self._lock:
            return [entry.job for entry in reversed(self._entries.values())]

    def cancel(self, name: str) -> Job:
        """Stop a job before its next step; what it has stored stays. A job that has ended stays as it is."""
        entry = self._entry(name)
        entry.cancelled.set()
        if entry.job.state == "waiting":
            self._change(entry, state="cancelled")
        return entry.job

    def close(self) -> None:
        """Cancel all jobs and wait until they have stopped."""
        with self._lock:
            entries = list(self._entries.values())
        for entry in entries:
            entry.cancelled.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, entry: _Entry, asked: Asked, *others: Asked) -> None:
        entry.started = time.monotonic()

        def tell(done: int, total: int) -> None:
            if entry.cancelled.is_set():
                raise _Cancelled
            self._change(entry, done=done, total=total)

        try:
            if entry.cancelled.is_set():
                raise _Cancelled
            self._change(entry, state="running")
            for address in KINDS[entry.job.kind].run(asked, entry.job.query, tell, *others):
                self._change(entry, results=(*entry.job.results, address))
            self._change(entry, state="done")
        except _Cancelled:
            self._change(entry, state="cancelled")
        except UnitscopeError as error:
            _log.error("job %s failed: %s", entry.job.id, error)
            self._change(entry, state="failed", problem=without_paths(str(error)))
        except Exception:  # noqa: BLE001  (the outermost border of a thread: every failure becomes a job's end)
            _log.exception("job %s failed", entry.job.id)
            self._change(entry, state="failed", problem=_FAILED)

    def _change(self, entry: _Entry, **changed: object) -> None:
        with self._lock:
            if entry.job.state not in _ENDED:
                seconds = round(time.monotonic() - entry.started, 3) if entry.started else 0.0
                entry.job = entry.job.model_copy(update={**changed, "seconds": seconds})

    def _entry(self, name: str) -> _Entry:
        with self._lock:
            if name not in self._entries:
                raise NotFoundError(f"no job {name!r} is known; it may have ended long ago or before the server began")
            return self._entries[name]

    def _forget(self) -> None:
        ended = [name for name, entry in self._entries.items() if entry.job.state in _ENDED]
        for name in ended[: max(0, len(ended) - self._kept)]:
            del self._entries[name]


def has_ended(job: Job) -> bool:
    """Whether a job will not change any more."""
    return job.state in _ENDED
