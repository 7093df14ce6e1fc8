"""Pictures: patches of units, parts of images, whole images."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from schemas.errors import UsageError
from services.documentation import PICTURE
from services.parameters import BoxText, ImageName, box_of
from services.pictures import Overlay, PictureName, Width, image_picture, patch_picture
from services.replies import Reading
from services.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}", tags=["pictures"])


@routes.get("/images/{image}.{kind}", responses=PICTURE)
def read_image_picture(reply: Reading, image: ImageName, kind: PictureName, width: Width = None) -> Response:
    """A whole image of the corpus, upright."""
    return image_picture(reply, image, kind, width)


@routes.get("/patches/{image}.{kind}", responses=PICTURE)
def read_patch_picture(
    reply: Reading,
    image: ImageName,
    kind: PictureName,
    unit: Annotated[str | None, Query(description="`LAYER:UNIT`: the box where this unit peaks")] = None,
    box: BoxText = None,
    size: Annotated[int | None, Query(ge=16, le=2048, description="longer side in pixels; without it as cut")] = None,
    context: Annotated[float, Query(ge=0, le=4, description="widen the box by this share on each side")] = 0.0,
    overlay: Annotated[Overlay, Query(description="box: the whole picture with the box drawn")] = "none",
) -> Response:
    """The patch of an image inside a box, or where a unit peaks.

    The box of a unit is its theoretical receptive field, or the effective one where it sees the whole input.
    """
    place = box_of(box) or unit
    if place is None or (box is not None and unit is not None):
        raise UsageError("give either unit=LAYER:UNIT or box=top,left,bottom,right")
    return patch_picture(reply, image, kind, place, size, context, overlay)
