"""Pages of jobs: what runs, how far it is, and the form on a unit's page that asks for one."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, Path
from starlette.responses import RedirectResponse, Response

from schemas.errors import UsageError
from schemas.jobs import Job, OptimiseJob
from schemas.units import UnitId
from services.jobs import has_ended
from services.links import Links
from services.parameters import Channel, LayerName
from services.replies import Computing, ComputingAnywhere
from services.routes.jobs import take_job

routes = APIRouter()

JobName = Annotated[str, Path(description="id of the job")]
_NO_STORE = {"Cache-Control": "no-store"}


@routes.get("/jobs")
def show_jobs(reply: ComputingAnywhere) -> Response:
    """The jobs that the server remembers."""
    jobs = reply.site.jobs.all()
    view = {"jobs": jobs, "running": not all(map(has_ended, jobs))}
    return replace(reply, private=True).page("jobs.html", lambda: view)


@routes.get("/jobs/{job}")
def show_job(reply: ComputingAnywhere, job: JobName) -> Response:
    """How far a job is, and what it has made."""
    found = reply.site.jobs.find(job)
    view = {"job": found, "running": not has_ended(found), "unit": _unit_page(found)}
    return replace(reply, private=True).page("job.html", lambda: view)


@routes.post("/jobs/{job}/cancel")
def stop_job(reply: ComputingAnywhere, job: JobName) -> Response:
    """Stop a job before its next step."""
    reply.site.jobs.cancel(job)
    return RedirectResponse(f"/jobs/{job}", 303, headers=_NO_STORE)


@routes.post("/a/{atlas}/layers/{layer}/units/{channel}/optimised")
def ask_for_optimised(
    reply: Computing, layer: LayerName, channel: Channel, seed: Annotated[int, Form(ge=0, lt=2**63)] = 0
) -> Response:
    """Have an input made for a unit, and lead to the job that makes it."""
    query = OptimiseJob(kind="optimise", atlas=reply.atlas, units=(str(UnitId(layer, channel)),), seed=seed)
    return RedirectResponse(f"/jobs/{take_job(reply, query).id}", 303, headers=_NO_STORE)


def _unit_page(job: Job) -> str | None:
    """The page of the job's unit, where it has just one."""
    if len(job.query.units) != 1:
        return None
    try:
        unit = UnitId.parse(job.query.units[0])
    except UsageError:
        return None  # a layer, or a glob
    return Links(job.atlas, "").unit(*unit)
