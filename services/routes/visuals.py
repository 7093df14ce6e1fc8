"""The stored pictures of units and directions."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from starlette.responses import Response

from schemas.units import DirectionId, Target, UnitId
from schemas.visuals import VisualPage, VisualRow
from services.documentation import PICTURE, ROWS
from services.parameters import Channel, LayerName
from services.replies import Reading, Reply
from services.routes import API
from services.visualisations import visual_picture, visualisations

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}/layers/{{layer}}", tags=["units"])

PictureName = Annotated[str, Path(description="id of the picture")]
DirectionName = Annotated[str, Path(pattern="^direction-[0-9a-f]{16}$", description="as rows of its pictures name it")]
Png = Annotated[Literal["png"], Path(description="the exact pixels")]


@routes.get("/units/{channel}/visualisations", response_model=VisualPage, responses=ROWS)
def list_visualisations(reply: Reading, layer: LayerName, channel: Channel) -> Response:
    """The pictures that were made of a unit, each with the activation it reaches beside the corpus."""
    return _listed(reply, UnitId(layer, channel))


@routes.get("/directions/{direction}/visualisations", response_model=VisualPage, responses=ROWS)
def list_direction_visualisations(reply: Reading, layer: LayerName, direction: DirectionName) -> Response:
    """The pictures that were made of a direction, each with the largest product that it reaches."""
    return _listed(reply, DirectionId(layer, direction))


@routes.get("/units/{channel}/visualisations/{name}.{kind}", responses=PICTURE)
def read_visualisation(reply: Reading, layer: LayerName, channel: Channel, name: PictureName, kind: Png) -> Response:
    """A stored picture of a unit; it never changes."""
    return _stored(reply, UnitId(layer, channel), name)


@routes.get("/directions/{direction}/visualisations/{name}.{kind}", responses=PICTURE)
def read_direction_visualisation(
    reply: Reading, layer: LayerName, direction: DirectionName, name: PictureName, kind: Png
) -> Response:
    """A stored picture of a direction; it never changes."""
    return _stored(reply, DirectionId(layer, direction), name)


def _listed(reply: Reply, target: Target) -> Response:
    growing = replace(reply, private=True)  # pictures are added without a new version of the atlas
    return growing.rows(VisualRow, lambda: visualisations(reply.asked.atlas, target))


def _stored(reply: Reply, target: Target, name: str) -> Response:
    visual, content = visual_picture(reply.asked.atlas, target, name)
    return reply.stored(visual.picture.sha256, "image/png", content)
