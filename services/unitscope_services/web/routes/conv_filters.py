"""The routes of filters: a layer's weights as pictures."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from starlette.responses import Response

from unitscope_schemas.answers.visuals import LinkedFilterPage, LinkedFilterRow
from unitscope_schemas.questions import Text
from unitscope_services.atlas.crops import encoded
from unitscope_services.figures.conv_filters import filter_of, filter_page, filter_sheet
from unitscope_services.figures.drawing import png, svg
from unitscope_services.server.linked import linked_filters
from unitscope_services.web.documentation import DRAWING, PICTURE, ROWS
from unitscope_services.web.parameters import Channel
from unitscope_services.web.replies import Weighing
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}/layers/{{layer}}/filters", tags=["units"])

_DRAWINGS = {"png": (png, "image/png"), "svg": (svg, "image/svg+xml")}
WeightsName = Annotated[
    Text, Path(description="module path of a convolution, recorded or not; `first` is the first layer with weights")
]


@routes.get("", response_model=LinkedFilterPage, responses=ROWS)
def list_filters(reply: Weighing, layer: WeightsName) -> Response:
    """List the weights of a layer as pictures, one for each unit, with their scale."""
    session = reply.session
    return reply.rows(LinkedFilterRow, lambda: linked_filters(session.atlas, filter_page(session, layer)))


@routes.get("/sheet.{kind}", responses=DRAWING)
def read_filters(
    reply: Weighing,
    layer: WeightsName,
    kind: Annotated[Literal["png", "svg"], Path(description="pixels, or pictures in a drawing with real text")],
) -> Response:
    """Draw all filters of a layer on one sheet, under their channels."""
    form, media_type = _DRAWINGS[kind]
    return reply.picture(kind, media_type, lambda: form(filter_sheet(reply.session, layer)))


@routes.get("/{channel}.{kind}", responses=PICTURE)
def read_filter(
    reply: Weighing,
    layer: WeightsName,
    channel: Channel,
    kind: Annotated[Literal["png"], Path(description="the exact pixels, one for each weight")],
) -> Response:
    """Return the picture of one filter: grey is zero, white the largest magnitude."""
    return reply.picture(kind, "image/png", lambda: encoded(filter_of(reply.session, layer, channel), kind))
