"""The pages of two atlases compared: choose them, have them compared, read the result unit by unit."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, Path, Query
from starlette.responses import RedirectResponse, Response

from unitscope_schemas.answers.jobs import CompareJob
from unitscope_schemas.errors import UsageError
from unitscope_schemas.questions import Text
from unitscope_services.pages.compare import ComparisonAddress, choice_view, comparison_view
from unitscope_services.queries.compare import stored_id
from unitscope_services.server.links import links_of
from unitscope_services.web.parameters import PageCursor
from unitscope_services.web.replies import ComputingAnywhere, General, Reading, Reply
from unitscope_services.web.routes.jobs import take_job

routes = APIRouter()

_NO_STORE = {"Cache-Control": "no-store"}
Name = Annotated[Text | None, Query(max_length=200)]


@routes.get("/compare")
def show_choice(reply: General, a: Name = None, b: Name = None, layer: Name = None, layer_b: Name = None) -> Response:
    """Show the choice of two atlases; lead to what is stored about them, else say what there is to do."""
    query = _compare_job(a, b, layer, layer_b) if a and b else None
    if query is not None and (stored := _stored(reply, a or "", query)):
        return RedirectResponse(stored, 303, headers=_NO_STORE)
    jobs = reply.app_state.job_registry.all(reply.reader.sees)
    return replace(reply, private=True, cost="scan").page(
        "compare.html",
        lambda: vars(choice_view(reply.app_state.atlases, jobs, a or None, query, reply.computes)),
    )


@routes.post("/compare")
def ask_for_comparison(
    reply: ComputingAnywhere,
    a: Annotated[Text, Form()],
    b: Annotated[Text, Form()],
    layer: Annotated[Text | None, Form()] = None,
    layer_b: Annotated[Text | None, Form()] = None,
) -> Response:
    """Have two atlases compared, and lead to the job that does, or to the result if it is stored."""
    query = _compare_job(a, b, layer, layer_b)
    target = _stored(reply, a, query) or f"/jobs/{take_job(reply, query).id}"
    return RedirectResponse(target, 303, headers=_NO_STORE)


@routes.get("/a/{atlas}/comparisons/{comparison}")
def show_comparison(
    reply: Reading,
    comparison: Annotated[Text, Path(description="id of a stored comparison")],
    layer: Text | None = None,
    sort: Text = "channel",
    cursor: PageCursor = None,
) -> Response:
    """Show two atlases, unit by unit, with both units' patches side by side."""
    shelf, address = reply.app_state.atlases, ComparisonAddress(layer or None, sort, cursor)
    # the other atlas may get a new version at any time, so nobody may keep the page
    return replace(reply, private=True).page(
        "comparison.html", lambda: vars(comparison_view(reply.session, shelf, comparison, address))
    )


def _compare_job(a: str, b: str, layer: str | None, layer_b: str | None) -> CompareJob:
    """Return what a form asks for: it sends fields that are left empty as empty texts."""
    return CompareJob(kind="compare", atlas=a, other=b, layer=layer or None, layer_b=layer_b or None)


def _stored(reply: Reply, atlas: str, query: CompareJob) -> str | None:
    """Return the page of the stored answer, if there is one."""
    atlas_a, atlas_b = reply.app_state.atlases.newest(atlas).atlas, reply.app_state.atlases.newest(query.other).atlas
    try:
        with reply.turn("scan"):
            identifier = stored_id(atlas_a, query, atlas_b)
    except UsageError:
        return None  # the page says what is wrong with the question
    return None if identifier is None else links_of(atlas_a).comparison(identifier)
