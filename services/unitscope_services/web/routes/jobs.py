"""The routes of jobs: start one, see how far it is, follow it, stop it."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from unitscope_pipelines.derived.visuals import check_writable
from unitscope_schemas.answers.jobs import CompareJob, Job, JobPage, JobQuery
from unitscope_schemas.errors import AccessError
from unitscope_schemas.formats import MEDIA_TYPES, json_bytes
from unitscope_schemas.questions import Text
from unitscope_services.server import caching
from unitscope_services.server.job_registry import has_ended
from unitscope_services.web.replies import ComputingAnywhere, Reply
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/jobs", tags=["jobs"])

_LOOK_EVERY_S = 0.25
_BEAT_EVERY = 60
"""Number of looks without news after which a comment keeps the connection open: a quarter of a minute."""
_PRIVATE = {"Cache-Control": caching.PRIVATE}


@routes.post("", response_model=Job, status_code=202)
def create_job(reply: ComputingAnywhere, query: JobQuery) -> Response:
    """Take a job: the answer has the address at which it can be followed. Results are stored in the atlas.

    Refused where the server cannot write into the atlas; there the command of the same name would do it.
    """
    job = take_job(reply, query)
    return _answer(job, 202, {"Location": f"{API}/jobs/{job.id}"})


@routes.get("", response_model=JobPage)
def list_jobs(reply: ComputingAnywhere) -> Response:
    """List the jobs of this key that the server remembers, the newest first; with the scope admin those of all."""
    return _answer(JobPage(rows=reply.app_state.job_registry.all(reply.reader.sees)))


@routes.get("/{job}", response_model=Job)
def read_job(reply: ComputingAnywhere, job: Text) -> Response:
    """Return how far a job is."""
    return _answer(reply.app_state.job_registry.find(job, reply.reader.sees))


@routes.get("/{job}/events", response_model=Job)
async def follow_job(reply: ComputingAnywhere, job: Text) -> Response:
    """Send the job each time it has changed, as server-sent events, until it has ended."""
    await run_in_threadpool(reply.app_state.job_registry.find, job, reply.reader.sees)
    headers = {**_PRIVATE, "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(reply, job), headers=headers, media_type="text/event-stream")


@routes.delete("/{job}", response_model=Job)
def cancel_job(reply: ComputingAnywhere, job: Text) -> Response:
    """Stop a job before its next step; what it has stored stays."""
    return _answer(reply.app_state.job_registry.cancel(job, reply.reader.sees))


@routes.post("/{job}/cancel", response_model=Job)
def stop_job(reply: ComputingAnywhere, job: Text) -> Response:
    """Stop a job, for clients that cannot send DELETE."""
    return _answer(reply.app_state.job_registry.cancel(job, reply.reader.sees))


def take_job(reply: Reply, query: JobQuery) -> Job:
    """Take a job; raises what is wrong with its query, and ReadOnlyError where results could not be stored."""
    shelf = reply.app_state.atlases
    session = shelf.newest(query.atlas)
    others = [shelf.newest(query.other)] if isinstance(query, CompareJob) else []
    check_writable(session.atlas.store, f"unitscope {query.kind}")
    with reply.turn("compute"):
        return reply.app_state.jobs.add(query, reply.reader.owner, session, *others)


async def _events(reply: Reply, name: str) -> AsyncIterator[bytes]:
    """Yield the job's states until it has ended, or its key was removed."""
    told, quiet = None, 0
    while told is None or not has_ended(told):
        try:
            reply.demand("compute")
        except AccessError:
            return
        job = await run_in_threadpool(reply.app_state.job_registry.find, name, reply.reader.sees)
        if job != told:
            yield b"event: " + job.state.encode() + b"\ndata: " + json_bytes(job) + b"\n\n"
            told, quiet = job, 0
        else:
            quiet += 1
            if quiet % _BEAT_EVERY == 0:
                yield b": still here\n\n"
            await asyncio.sleep(_LOOK_EVERY_S)


def _answer(content: Job | JobPage, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json_bytes(content), status, {**_PRIVATE, **(headers or {})}, MEDIA_TYPES["json"])
