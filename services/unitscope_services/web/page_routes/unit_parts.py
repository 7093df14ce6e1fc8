"""The parts of a unit's page that it loads when they come into view: pages of their own without scripts."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from unitscope_schemas.questions import Likeness, Text
from unitscope_schemas.units import UnitId
from unitscope_services.pages.eigen import eigen_view
from unitscope_services.pages.trace import trace_view
from unitscope_services.pages.unit_parts import bands_view, facets_view, similar_view
from unitscope_services.web.parameters import Channel, LayerName
from unitscope_services.web.replies import Computing, Decomposing, Faceting, Scanning

routes = APIRouter(prefix="/a/{atlas}/layers/{layer}/units/{channel}")


@routes.get("/similar")
def show_similar(
    reply: Scanning,
    layer: LayerName,
    channel: Channel,
    by: Likeness | None = None,
    among: Annotated[Text | None, Query(max_length=500)] = None,
) -> Response:
    """Show the units most like a unit, each with its first patches."""
    asking = replace(reply, private=True)  # co-activation is computed without a new version of the atlas
    if by == "weights":
        asking.demand("compute")
        asking = replace(asking, cost="weights")
    unit = UnitId(layer, channel)
    return asking.page(
        "similar.html", lambda: vars(similar_view(reply.session, unit, by, among or None, reply.computes))
    )


@routes.get("/facets")
def show_facets(reply: Faceting, layer: LayerName, channel: Channel) -> Response:
    """Show a unit's first exemplars in groups that look alike where it peaks."""
    return reply.page("facets.html", lambda: vars(facets_view(reply.session, UnitId(layer, channel))))


@routes.get("/bands")
def show_bands(reply: Scanning, layer: LayerName, channel: Channel) -> Response:
    """Show examples from the whole distribution of a unit."""
    return reply.page("bands.html", lambda: vars(bands_view(reply.session.atlas, UnitId(layer, channel))))


@routes.get("/trace")
def show_trace(
    reply: Computing, layer: LayerName, channel: Channel, image: Annotated[str, Query(min_length=1, max_length=4096)]
) -> Response:
    """Show what the peak of a unit on an image rests on, link by link."""
    asking = replace(reply, private=True)  # links break without a new version of the atlas
    return asking.page("trace.html", lambda: vars(trace_view(reply.session, UnitId(layer, channel), image)))


@routes.get("/eigen")
def show_eigen_patches(reply: Decomposing, layer: LayerName, channel: Channel) -> Response:
    """Show the mean and principal components of a unit's patches; their pictures are read for it."""

    return reply.page("eigen.html", lambda: vars(eigen_view(reply.session, UnitId(layer, channel))))
