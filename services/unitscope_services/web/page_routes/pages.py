"""The pages for people: they work without scripts, and every one is a plain address."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.question import read_box
from unitscope_schemas.questions import Order, SkippedQuestion, Text, UnitStatus
from unitscope_schemas.units import UnitId
from unitscope_services.figures.tiles import SpriteKind, state_of
from unitscope_services.pages.annotations.written import written_about, written_with
from unitscope_services.pages.conv_filters import filters_view
from unitscope_services.pages.find_page import find_view, place_named
from unitscope_services.pages.layer import LayerAddress, layer_view
from unitscope_services.pages.pages import UnitAddress, atlas_view, home_view, unit_view
from unitscope_services.pages.picture import PictureAddress, PicturePage
from unitscope_services.pages.unit_parts import units_view
from unitscope_services.pages.views import SkippedView
from unitscope_services.queries.images import skipped_page
from unitscope_services.queries.session import Subject
from unitscope_services.server.links import links_of
from unitscope_services.web.documentation import describe, operations
from unitscope_services.web.middleware import FRAMED_POLICY
from unitscope_services.web.parameters import (
    BoxText,
    Channel,
    Fields,
    ImageName,
    LayerName,
    PageCursor,
    band_in,
    cell_in,
)
from unitscope_services.web.replies import Computing, General, Reading, Reply, Scanning, Weighing
from unitscope_services.web.routes.uploads import find_upload, keep_upload, read_body, upload_row, upload_subject

routes = APIRouter()

_SKIPPED_ROWS = 100


@routes.get("/")
def show_home(reply: General) -> Response:
    """Show the atlases, or what to do when there are none."""
    shelf = reply.app_state.atlases
    return reply.page(
        "home.html",
        lambda: _named(home_view([shelf.newest(name) for name in shelf.names], reply.computes)),
    )


@routes.get("/docs")
def show_documentation(reply: General) -> Response:
    """Show the API, from its own description."""
    document = describe(reply.request.app)
    return reply.page("docs.html", lambda: {"document": document, "groups": operations(document)})


@routes.get("/a/{atlas}")
def show_atlas(reply: Reading) -> Response:
    """Show an atlas's provenance and layers."""
    return reply.page("atlas.html", lambda: _named(atlas_view(reply.session, reply.computes)))


@routes.get("/a/{atlas}/skipped")
def show_skipped(reply: Reading, cursor: PageCursor = None) -> Response:
    """Show the files that are no usable image."""

    def view() -> SkippedView:
        question = SkippedQuestion(k=_SKIPPED_ROWS, cursor=cursor)
        atlas, page = reply.session.atlas, skipped_page(reply.session.atlas, question)
        links = links_of(atlas)
        following = page.next and links.at(links.skipped, cursor=page.next)
        return SkippedView(atlas.summary(), links, page, following)

    return reply.page("skipped.html", lambda: _named(view()))


@routes.get("/a/{atlas}/find")
def find(reply: Reading, q: Annotated[str, Query(max_length=500)] = "") -> Response:
    """Lead from `layer:unit`, a layer, an image id or a path to its page; show what any other text may mean."""
    atlas, text = reply.session.atlas, q.strip()
    target = place_named(atlas, text)
    if target is not None:
        return RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})
    changing = replace(reply, state=reply.session.annotations.state)
    return changing.page(
        "find.html", lambda: {**_named(find_view(atlas, text)), "written": written_with(changing.session, text)}
    )


@routes.get("/a/{atlas}/units")
def show_units(
    reply: Scanning,
    u: Annotated[list[Text] | None, Query(max_length=100, description="`LAYER:UNIT`, two to twelve times")] = None,
) -> Response:
    """Show several units side by side."""
    return reply.page("units.html", lambda: _named(units_view(reply.session.atlas, u or [])))


@routes.get("/a/{atlas}/filters")
def show_filters(reply: Weighing, layer: Text = "first") -> Response:
    """Show a layer's weights as pictures."""
    return reply.page("conv_filters.html", lambda: _named(filters_view(reply.session, layer or "first")))


@routes.get("/a/{atlas}/layers/{layer}")
def show_layer(
    reply: Reading,
    layer: LayerName,
    kind: SpriteKind = "patch",
    sort: Text = "channel",
    status: UnitStatus | None = None,
    cursor: PageCursor = None,
) -> Response:
    """Show the units of a layer, each with its first patch or what was made of it."""
    growing = replace(reply, state=state_of(reply.session, layer, kind))
    address = LayerAddress(kind, sort, status, cursor)
    return growing.page("layer.html", lambda: _named(layer_view(growing.session, layer, address)))


@routes.get("/a/{atlas}/layers/{layer}/units/{channel}")
def show_unit(
    reply: Reading,
    layer: LayerName,
    channel: Channel,
    look: Literal["patch", "masked", "context", "whole", "activation"] = "patch",
    order: Order = "desc",
    quantile: Fields = None,
    label: Text | None = None,
    cursor: PageCursor = None,
    embed: bool = False,
) -> Response:
    """Show what a unit responds to; with `embed` only its patches, for other sites to frame if anyone may read here."""
    address = UnitAddress(look, order, band_in(quantile), label or None, cursor)
    if embed and reply.app_state.keys.allows_anyone("read"):
        reply = replace(reply, headers={"Content-Security-Policy": FRAMED_POLICY})
    view = partial(unit_view, reply.session.atlas, UnitId(layer, channel), address, reply.computes)
    if embed:
        return reply.page("embed.html", lambda: _named(view()))
    growing = replace(reply, private=True)  # what is made and written of a unit is shown without a new version
    return growing.page("unit.html", lambda: {**_named(view()), **_written(growing, str(UnitId(layer, channel)))})


def picture_address(
    layer: Text | None = None, spot: BoxText = None, box: Fields = None, unit: Text | None = None, cell: Fields = None
) -> PictureAddress:
    """Return the question that the address of a picture's page holds; raises UsageError."""
    return PictureAddress(
        layer=layer or None,
        spot=read_box(spot),
        box=read_box(box),
        unit=UnitId.parse(unit) if unit else None,
        cell=cell_in(cell),
    )


PictureQuery = Annotated[PictureAddress, Depends(picture_address)]


@routes.get("/a/{atlas}/images/{image}")
def show_image(reply: Scanning, image: ImageName, address: PictureQuery) -> Response:
    """Show an image of the corpus: what it excites and what resembles it."""
    asking = replace(_asking(reply, address), private=True)  # people write about it without a new version

    def content() -> dict[str, Any]:
        page = _image_page(asking, image, address)
        return {**_named(page.view()), **_written(asking, reply.session.atlas.find_image(image).image_id)}

    return asking.page("picture.html", content)


@routes.get("/a/{atlas}/images/{image}/here")
def show_image_cell(reply: Computing, image: ImageName, address: PictureQuery) -> Response:
    """Show the part of an image's page about one cell, which follows the pointer."""
    return reply.page("cell.html", lambda: {"cell": _image_page(reply, image, address).cell_view(_cell(address))})


@routes.post("/a/{atlas}/uploads")
async def take_upload(reply: Computing, request: Request) -> Response:
    """Keep a picture from the form and lead to its page."""
    entry = await run_in_threadpool(keep_upload, reply, await read_body(request))
    start = await run_in_threadpool(lambda: links_of(reply.session.atlas).uploads)
    return RedirectResponse(f"{start}/{entry.id}", 303, headers={"Cache-Control": "no-store"})


@routes.get("/a/{atlas}/uploads/{upload}")
def show_upload(reply: Computing, upload: Text, address: PictureQuery) -> Response:
    """Show an upload: what it excites and what resembles it."""
    asking = replace(reply, private=True)
    return asking.page("picture.html", lambda: _named(_upload_page(asking, upload, address).view()))


@routes.get("/a/{atlas}/uploads/{upload}/here")
def show_upload_cell(reply: Computing, upload: Text, address: PictureQuery) -> Response:
    """Show the part of an upload's page about one cell, which follows the pointer."""
    asking = replace(reply, private=True)
    return asking.page("cell.html", lambda: {"cell": _upload_page(asking, upload, address).cell_view(_cell(address))})


def _asking(reply: Reply, address: PictureAddress) -> Reply:
    """Return the reply, with the scope that the address needs."""
    if reply.session.stores_peaks and not address.runs_model:
        return reply
    reply.demand("compute")
    return replace(reply, scope="compute", cost="compute")


def _image_page(reply: Reply, image: str, address: PictureAddress) -> PicturePage:
    subject = Subject(reply.session.atlas.find_image(image), None)
    return PicturePage(reply.session, subject, None, address, reply.computes)


def _upload_page(reply: Reply, upload: str, address: PictureAddress) -> PicturePage:
    row = upload_row(reply, find_upload(reply, upload))
    return PicturePage(reply.session, upload_subject(reply, upload), row, address, computes=True)


def _written(reply: Reply, subject: str) -> dict[str, Any]:
    return {"written": written_about(reply.session, subject, reply.reader.may("annotate"))}


def _cell(address: PictureAddress) -> Location:
    if address.cell is None:
        raise UsageError("give cell=row,col")
    return address.cell


def _named(view: Any) -> dict[str, Any]:
    """Return a view as templates name it: its fields by their names."""
    return {name: getattr(view, name) for name in view.__dataclass_fields__}
