"""Pages for people: they work without scripts, and every one is a plain address."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from schemas.units import UnitId
from schemas.web import Order, UnitStatus
from services.documentation import describe, operations
from services.pages import UnitAddress, atlas_view, layer_view, links_of, picture_view, unit_view
from services.parameters import BoxText, Channel, Cursor, ImageName, LayerName, box_of
from services.replies import Computing, General, Reading
from services.routes.atlases import skipped_page
from services.routes.uploads import find_upload, keep_upload, read_body, upload_row, upload_subject
from services.subjects import Subject
from services.views import HomeView, SkippedView

routes = APIRouter()

_SKIPPED_ROWS = 100


@routes.get("/")
def show_home(reply: General) -> Response:
    """The atlases, or what to do when there are none."""
    shelf = reply.site.shelf
    return reply.page(
        "home.html", lambda: _named(HomeView([shelf.newest(name).atlas.summary() for name in shelf.names]))
    )


@routes.get("/docs")
def show_documentation(reply: General) -> Response:
    """The API, from its own description."""
    document = describe(reply.request.app)
    return reply.page("docs.html", lambda: {"document": document, "groups": operations(document)})


@routes.get("/a/{atlas}")
def show_atlas(reply: Reading) -> Response:
    """Provenance and layers."""
    uploads = reply.site.keys.allows_anyone("compute")
    return reply.page("atlas.html", lambda: _named(atlas_view(reply.asked, uploads)))


@routes.get("/a/{atlas}/skipped")
def show_skipped(reply: Reading, cursor: Cursor = None) -> Response:
    """The files that are no usable image."""

    def view() -> SkippedView:
        atlas, page = reply.asked.atlas, skipped_page(reply, _SKIPPED_ROWS, cursor)
        links = links_of(atlas)
        following = page.next and links.at(links.skipped, cursor=page.next)
        return SkippedView(atlas.summary(), links, page, following)

    return reply.page("skipped.html", lambda: _named(view()))


@routes.get("/a/{atlas}/find")
def find(reply: Reading, q: Annotated[str, Query(max_length=500)] = "") -> Response:
    """Leads from `layer:unit`, a layer, an image id or a path to its page."""
    atlas, wanted = reply.asked.atlas, q.strip()
    links = links_of(atlas)
    layer, _, channel = wanted.rpartition(":")
    if not wanted:
        target = links.home
    elif atlas.manifest.layer(wanted) is not None:
        target = links.layer(wanted)
    elif atlas.manifest.layer(layer) is not None and channel.isdecimal():
        atlas.unit(UnitId(layer, int(channel)))
        target = links.unit(layer, int(channel))
    else:
        target = links.image(atlas.find_image(wanted)["image_id"])
    return RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})


@routes.get("/a/{atlas}/layers/{layer}")
def show_layer(
    reply: Reading, layer: LayerName, sort: str = "channel", status: UnitStatus | None = None, cursor: Cursor = None
) -> Response:
    """The units of a layer, each with its first patch."""
    return reply.page("layer.html", lambda: _named(layer_view(reply.asked.atlas, layer, sort, status, cursor)))


@routes.get("/a/{atlas}/layers/{layer}/units/{channel}")
def show_unit(
    reply: Reading,
    layer: LayerName,
    channel: Channel,
    look: Literal["patch", "context", "whole"] = "patch",
    order: Order = "desc",
    quantile: str | None = None,
    label: str | None = None,
    cursor: Cursor = None,
) -> Response:
    """What a unit responds to."""
    address = UnitAddress(look, order, quantile or None, label or None, cursor)
    computes = reply.site.keys.allows_anyone("compute")
    growing = replace(reply, private=True)  # what is made of a unit is shown without a new version of the atlas
    return growing.page(
        "unit.html", lambda: _named(unit_view(reply.asked.atlas, UnitId(layer, channel), address, computes))
    )


@routes.get("/a/{atlas}/images/{image}")
def show_image(reply: Reading, image: ImageName, layer: str | None = None, spot: BoxText = None) -> Response:
    """An image of the corpus: what it excites and what resembles it."""
    box = box_of(spot)

    def view() -> Any:
        subject = Subject(reply.asked.atlas.find_image(image), None)
        return picture_view(reply.asked, subject, None, layer, box)

    return reply.page("picture.html", lambda: _named(view()))


@routes.post("/a/{atlas}/uploads")
async def take_upload(reply: Computing, request: Request) -> Response:
    """Keeps a picture from the form and leads to its page."""
    kept = await run_in_threadpool(keep_upload, reply, await read_body(request))
    start = await run_in_threadpool(lambda: links_of(reply.asked.atlas).uploads)
    return RedirectResponse(f"{start}/{kept.id}", 303, headers={"Cache-Control": "no-store"})


@routes.get("/a/{atlas}/uploads/{upload}")
def show_upload(reply: Computing, upload: str, layer: str | None = None, spot: BoxText = None) -> Response:
    """An upload: what it excites and what resembles it."""
    asking, box = replace(reply, private=True), box_of(spot)

    def view() -> Any:
        subject = upload_subject(asking, upload)
        row = upload_row(asking, find_upload(asking, upload))
        return picture_view(asking.asked, subject, row, layer, box)

    return asking.page("picture.html", lambda: _named(view()))


def _named(view: Any) -> dict[str, Any]:
    """A view as what templates call it: its fields by their names."""
    return {name: getattr(view, name) for name in view.__dataclass_fields__}
