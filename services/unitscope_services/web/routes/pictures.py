"""The routes of pictures: patches of units, parts of images, whole images."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Box
from unitscope_schemas.questions import MOST_COUNT, Text
from unitscope_services.figures.sprites import SheetAddress, SheetFormat, read_channels
from unitscope_services.figures.tiles import SpriteKind
from unitscope_services.web.documentation import PICTURE
from unitscope_services.web.parameters import BoxText, ImageName, LayerName
from unitscope_services.web.pictures import Overlay, PictureName, Width, image_picture, patch_picture, sprite_picture
from unitscope_services.web.replies import Picturing, Reading
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}", tags=["pictures"])


@routes.get("/images/{image}.{kind}", responses=PICTURE)
def read_image_picture(reply: Picturing, image: ImageName, kind: PictureName, width: Width = None) -> Response:
    """Return a whole image of the corpus, upright."""
    return image_picture(reply, image, kind, width)


@routes.get("/patches/{image}.{kind}", responses=PICTURE)
def read_patch_picture(
    reply: Picturing,
    image: ImageName,
    kind: PictureName,
    unit: Annotated[Text | None, Query(description="`LAYER:UNIT`: the box where this unit peaks")] = None,
    box: BoxText = None,
    size: Annotated[int | None, Query(ge=16, le=2048, description="longer side in pixels; without it as cut")] = None,
    context: Annotated[float, Query(ge=0, le=4, description="widen the box by this share on each side")] = 0.0,
    overlay: Annotated[
        Overlay,
        Query(
            description="`box`: the whole picture with the box drawn; `map`: with the unit's map in colours from its "
            "lowest to its highest activation, and from 96 pixels on a legend below; `mask`: the patch, darkened where "
            "the map is below half its peak"
        ),
    ] = "none",
) -> Response:
    """Return the patch of an image inside a box, or where a unit peaks.

    The box of a unit is its theoretical receptive field, or the effective one where it sees the whole input.
    """
    spot = unit if box is None else Box.parse(box)
    if spot is None or (box is not None and unit is not None):
        raise UsageError("give either unit=LAYER:UNIT or box=top,left,bottom,right")
    if overlay in ("map", "mask"):
        if unit is None:
            raise UsageError(f"overlay={overlay} shows a unit's activation: give unit=LAYER:UNIT")
        reply.demand("compute")
        reply = replace(reply, scope="compute", cost="compute")
    return patch_picture(reply, image, kind, spot, size, context, overlay)


@routes.get("/layers/{layer}/sprites/{what}.{kind}", responses=PICTURE)
def read_sprites(
    reply: Reading,
    layer: LayerName,
    what: Annotated[
        SpriteKind,
        Path(description="first patch, best optimised input, projection of the highest activation, or weights"),
    ],
    kind: Annotated[SheetFormat, Path(description="webp is lossy, png holds the exact pixels")],
    sheet: Annotated[int, Query(ge=0, le=MOST_COUNT // 256, description="units 256 · sheet to 256 · sheet + 255")] = 0,
    channels: Annotated[
        Text | None, Query(description="some units instead, as `3,17,5`: at most 32, in this order, each once")
    ] = None,
) -> Response:
    """Return tiles of 64 pixels for 256 units of a layer, or for some of them, 16 in a row.

    A tile shows the unit's first patch, as `size=64` does, or what was made of the unit; for WebP large JPEG files are
    decoded at a reduced size. A unit without such a picture has an empty tile.
    """
    chosen = read_channels(channels)
    if chosen and sheet:
        raise UsageError("give either sheet or channels")
    return sprite_picture(reply, SheetAddress(layer, what, sheet, channels=chosen), kind)
