"""Jobs that this process runs: work that takes minutes, so many at a time, each with progress, an end, and a way to
stop it."""

import logging
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from unitscope_schemas.addresses import without_paths
from unitscope_schemas.answers.jobs import Job, JobQuery
from unitscope_schemas.errors import UnitscopeError
from unitscope_services.queries.session import Session
from unitscope_services.server.job_kinds import KINDS
from unitscope_services.server.job_registry import JobRegistry
from unitscope_services.server.limits.admission import patience

_log = logging.getLogger("unitscope")
_FAILED = "the server failed; its log has the reason under the job's id"


class _Cancelled(Exception):  # noqa: N818  (somebody wished it)
    """The job was cancelled."""


class Jobs:
    """The jobs that this process took, run in threads of its own; the registry is told how far they are."""

    def __init__(self, job_registry: JobRegistry, running: int) -> None:
        self._registry = job_registry
        self._threads = ThreadPoolExecutor(running, thread_name_prefix="job")

    def add(self, query: JobQuery, owner: str, session: Session, *others: Session) -> Job:
        """Take a job that is done later; raises what is wrong with it, and OverloadError if too many wait.

        `owner`: who asks for it. `others`: the atlases that the query names besides its own.
        """
        kind = KINDS[query.kind]
        kind.check(session, query, *others)
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
        self._registry.take(job, owner, os.getpid())
        self._threads.submit(self._run, job, session, *others)
        return job

    def close(self) -> None:
        """Cancel the jobs that this process took and wait until they have stopped."""
        self._registry.stop(os.getpid())
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, job: Job, session: Session, *others: Session) -> None:
        results: tuple[str, ...] = ()

        def change(**changed: object) -> None:
            if not self._registry.change(job.id, **changed):
                raise _Cancelled

        def tell(done: int, total: int) -> None:
            change(done=done, total=total)

        try:
            change(state="running")
            with patience():
                for address in KINDS[job.kind].run(session, job.query, tell, *others):
                    results = (*results, address)
                    self._registry.change(job.id, results=results)
            self._registry.change(job.id, state="done")
        except _Cancelled:
            self._registry.change(job.id, state="cancelled")
        except UnitscopeError as error:
            _log.error("job %s failed: %s", job.id, error)
            self._registry.change(job.id, state="failed", problem=without_paths(str(error)))
        except Exception:  # noqa: BLE001  (the outermost border of a thread: every failure becomes a job's end)
            _log.exception("job %s failed", job.id)
            self._registry.change(job.id, state="failed", problem=_FAILED)
