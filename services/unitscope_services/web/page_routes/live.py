"""The live page, and the part of it about the chosen unit."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from unitscope_schemas.questions import ProjectionMethod, Text
from unitscope_schemas.units import UnitId
from unitscope_services.pages.live import first_unit, live_unit_view, live_view
from unitscope_services.web.middleware import SAFE_HEADERS
from unitscope_services.web.replies import Computing

routes = APIRouter()

LIVE_HEADERS = {
    "Permissions-Policy": SAFE_HEADERS["Permissions-Policy"].replace("camera=()", "camera=(self)"),
    # a video file that the reader opens is an address of the page's own
    "Content-Security-Policy": SAFE_HEADERS["Content-Security-Policy"] + "; media-src 'self' blob:",
}
UnitName = Annotated[Text | None, Query(description="the chosen unit, `LAYER:UNIT`")]


@routes.get("/a/{atlas}/live")
def show_live(
    reply: Computing,
    unit: UnitName = None,
    layer: Text | None = None,
    image: Text | None = None,
    back: ProjectionMethod | None = None,
    hold: Text | None = None,
) -> Response:
    """Show frames of a picture, a camera or a film as the network sees them; `back` and `hold` are read by the page."""

    def view() -> dict[str, object]:
        content = live_view(
            reply.session, first_unit(reply.session, unit, layer), image, reply.app_state.settings.upload_bytes
        )
        return vars(content)

    # made pictures are shown without a new version of the atlas, as on the unit's page
    return replace(reply, private=True, headers=LIVE_HEADERS).page("live.html", view)


@routes.get("/a/{atlas}/live/unit")
def show_stored(reply: Computing, unit: Text) -> Response:
    """Show what is stored of the chosen unit, which follows the choice."""
    growing = replace(reply, private=True)
    return growing.page(
        "live_unit.html", lambda: {"live_unit": live_unit_view(reply.session.atlas, UnitId.parse(unit))}
    )
