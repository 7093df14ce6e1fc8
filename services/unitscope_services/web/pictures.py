"""Pictures as replies: whole images and patches; the same address gives the same bytes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from fastapi import Path, Query
from PIL import Image, ImageDraw
from starlette.responses import Response

from unitscope_schemas.errors import NotFoundError, PictureError
from unitscope_schemas.geometry import Box, Size
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.crops import PictureFormat, cut, encoded, fitted, picture, read_image, widened
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.encoding import heat
from unitscope_services.encoding.cells import CellGrid, scaled, with_map
from unitscope_services.encoding.masks import mask, masked
from unitscope_services.figures.blanks import blank
from unitscope_services.figures.legend import LEAST_PX, legend_height, with_legend
from unitscope_services.figures.sprites import SheetAddress, SheetFormat, sheet_file
from unitscope_services.figures.tiles import state_of
from unitscope_services.queries.session import Subject
from unitscope_services.queries.units import peak_box
from unitscope_services.server.uploads import UploadEntry
from unitscope_services.web.replies import Reply

PictureName = Annotated[PictureFormat, Path(description="jpg and webp are lossy, png holds the exact pixels")]
Width = Annotated[int | None, Query(ge=16, le=4096, description="in pixels; without it the picture's own")]
Overlay = Literal["none", "box", "map", "mask"]

MEDIA_TYPES: dict[PictureFormat, str] = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_BLANK_PX = 224
_ACCENT = (255, 106, 0)
_PAPER = (255, 255, 255)


def image_picture(reply: Reply, image: str, kind: PictureFormat, width: int | None) -> Response:
    """Return the reply with a whole upright image of the corpus."""
    return _picture(reply, kind, lambda: _widened(_whole(reply, reply.session.atlas.find_image(image)), width))


def upload_picture(reply: Reply, upload: UploadEntry, kind: PictureFormat, width: int | None) -> Response:
    """Return the reply with a whole upright upload."""
    return _picture(reply, kind, lambda: _widened(picture(reply.session.atlas, upload.data), width))


def patch_picture(
    reply: Reply,
    image: str,
    kind: PictureFormat,
    spot: str | Box,
    size: int | None,
    context: float,
    overlay: Overlay,
) -> Response:
    """Return the reply with the patch of an image: a given box, or where the unit `LAYER:UNIT` peaks."""

    def make() -> Image.Image:
        atlas = reply.session.atlas
        row = atlas.find_image(image)
        box = spot if isinstance(spot, Box) else peak_box(atlas, UnitId.parse(spot), row)
        whole = _whole(reply, row)
        if overlay == "box":
            return _with_box(whole, box, size)
        if overlay == "map":
            return _with_map(reply, row, UnitId.parse(str(spot)), whole, size)
        if overlay == "mask":
            wide = widened(box, Size(whole.height, whole.width), context)
            return _masked(reply, row, UnitId.parse(str(spot)), cut(whole, wide, size), wide)
        return cut(whole, box, size, context)

    return _picture(reply, kind, make)


def sprite_picture(reply: Reply, address: SheetAddress, kind: SheetFormat) -> Response:
    """Return the reply with a sheet of tiles."""
    sheet = replace(address, state=state_of(reply.session, address.layer, address.kind))
    growing, turns = replace(reply, state=sheet.state, cost="sheet"), reply.app_state.turns
    return growing.picture(
        kind, MEDIA_TYPES[kind], lambda: sheet_file(growing.session, sheet, kind, partial(turns.of, "picture"))
    )


def _picture(reply: Reply, kind: PictureFormat, make: Callable[[], Image.Image]) -> Response:
    """Return the reply with a picture; a browser's <img> shows a blank with the reason where there is none."""

    try:
        return reply.picture(kind, MEDIA_TYPES[kind], lambda: encoded(make(), kind))
    except (NotFoundError, PictureError) as error:
        if reply.request.headers.get("sec-fetch-dest") != "image":
            raise
        shown = encoded(blank((_BLANK_PX, _BLANK_PX), str(error)), kind)
        return Response(shown, 404, {"Cache-Control": "no-store"}, MEDIA_TYPES[kind])


def _whole(reply: Reply, image: ImageEntry) -> Image.Image:
    return picture(reply.session.atlas, read_image(reply.session.atlas, image))


def _widened(whole: Image.Image, width: int | None) -> Image.Image:
    """Return a picture scaled to a width, never enlarged."""
    if width is None or width >= whole.width:
        return whole
    return fitted(whole, round(width * max(whole.size) / whole.width))


def _with_map(reply: Reply, image: ImageEntry, unit: UnitId, whole: Image.Image, size: int | None) -> Image.Image:
    """Return the whole picture, fitted into a square if wished, with the unit's map laid over it, and a legend below.

    The legend lies within the square too; a small picture has none.
    """
    atlas = reply.session.atlas
    activations = reply.session.activation_map(Subject(image, None), unit)
    limits = heat.limits(activations)
    side = size or max(whole.size)
    has_room = whole.width * side / max(whole.size) >= LEAST_PX
    height = legend_height(side) if limits is not None and has_room else 0
    shown = whole if size is None else fitted(whole, size - height)
    placement = atlas.placement(image)
    down, across = shown.height / whole.height, shown.width / whole.width
    grid = scaled(CellGrid.of(atlas.layer(unit.layer).spec, placement), down, across)
    top, left, bottom, right = placement.seen
    seen = Box(round(top * down), round(left * across), round(bottom * down), round(right * across))
    laid = with_map(shown, activations, grid, seen)
    if limits is None or not height:
        return laid
    return with_legend(laid, limits, height)


def _masked(reply: Reply, image: ImageEntry, unit: UnitId, patch: Image.Image, box: Box) -> Image.Image:
    """Return the patch of a box, darkened where the unit's map is below its threshold."""
    atlas = reply.session.atlas
    activations = reply.session.activation_map(Subject(image, None), unit)
    down, across = patch.height / box.size.height, patch.width / box.size.width
    grid = scaled(CellGrid.of(atlas.layer(unit.layer).spec, atlas.placement(image)), down, across)
    within = replace(grid, top=grid.top - box.top * down, left=grid.left - box.left * across)
    return masked(patch, mask(activations, within, Box(0, 0, patch.height, patch.width)))


def _with_box(whole: Image.Image, box: Box, size: int | None) -> Image.Image:
    """Return the whole picture, fitted into a square if wished, with the box drawn around what is inside it."""
    shown = whole if size is None else fitted(whole, size)
    across, down = shown.width / whole.width, shown.height / whole.height
    line = max(2, max(shown.size) // 100)
    left, top = round(box.left * across), round(box.top * down)
    right, bottom = round(box.right * across) - 1, round(box.bottom * down) - 1
    draw = ImageDraw.Draw(shown)
    draw.rectangle((left - line, top - line, right + line, bottom + line), outline=_PAPER, width=line)
    draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=_ACCENT, width=line)
    return shown
