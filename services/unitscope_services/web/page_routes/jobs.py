"""The pages of jobs: what runs, how far it is, and the form on a unit's page that starts one."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, Path
from starlette.responses import RedirectResponse, Response

from unitscope_schemas.answers.jobs import OptimiseJob, SimilarJob
from unitscope_schemas.questions import Text
from unitscope_schemas.units import UnitId
from unitscope_services.pages.job_views import job_view
from unitscope_services.web.parameters import Channel, LayerName
from unitscope_services.web.replies import Computing, ComputingAnywhere
from unitscope_services.web.routes.jobs import take_job

routes = APIRouter()

JobName = Annotated[Text, Path(description="id of the job")]
_NO_STORE = {"Cache-Control": "no-store"}


@routes.get("/jobs")
def show_jobs(reply: ComputingAnywhere) -> Response:
    """Show the jobs that the server remembers."""
    jobs = list(map(job_view, reply.app_state.job_registry.all(reply.reader.sees)))
    view = {"jobs": jobs, "running": any(job.running for job in jobs)}
    return replace(reply, private=True).page("jobs.html", lambda: view)


@routes.get("/jobs/{job}")
def show_job(reply: ComputingAnywhere, job: JobName) -> Response:
    """Show how far a job is, and what it has made."""
    view = job_view(reply.app_state.job_registry.find(job, reply.reader.sees))
    return replace(reply, private=True).page("job.html", lambda: vars(view))


@routes.post("/jobs/{job}/cancel")
def stop_job(reply: ComputingAnywhere, job: JobName) -> Response:
    """Stop a job before its next step."""
    reply.app_state.job_registry.cancel(job, reply.reader.sees)
    return RedirectResponse(f"/jobs/{job}", 303, headers=_NO_STORE)


@routes.post("/a/{atlas}/layers/{layer}/units/{channel}/optimised")
def ask_for_optimised(
    reply: Computing, layer: LayerName, channel: Channel, seed: Annotated[int, Form(ge=0, lt=2**63)] = 0
) -> Response:
    """Have an input made for a unit, and lead to the job that makes it."""
    query = OptimiseJob(kind="optimise", atlas=reply.atlas, units=(str(UnitId(layer, channel)),), seed=seed)
    return RedirectResponse(f"/jobs/{take_job(reply, query).id}", 303, headers=_NO_STORE)


@routes.post("/a/{atlas}/layers/{layer}/units/{channel}/similar")
def ask_for_similar(
    reply: Computing, layer: LayerName, channel: Channel, among: Annotated[Text | None, Form()] = None
) -> Response:
    """Have co-activation computed for a unit's layer, and lead to the job that does."""
    query = SimilarJob(kind="similar", atlas=reply.atlas, unit=str(UnitId(layer, channel)), among=among or None)
    return RedirectResponse(f"/jobs/{take_job(reply, query).id}", 303, headers=_NO_STORE)
