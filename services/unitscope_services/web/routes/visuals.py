"""The routes of stored pictures of directions; those of a unit are among the unit's routes."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from starlette.responses import Response

from unitscope_schemas.answers.visuals import LinkedVisualPage, LinkedVisualRow
from unitscope_schemas.questions import Text
from unitscope_schemas.units import DirectionId
from unitscope_services.queries.visuals import visual_picture, visualisations
from unitscope_services.server.linked import linked_visuals
from unitscope_services.web.documentation import PICTURE, ROWS
from unitscope_services.web.parameters import LayerName
from unitscope_services.web.replies import Reading
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}/layers/{{layer}}/directions", tags=["units"])

PictureName = Annotated[Text, Path(description="id of the picture")]
DirectionName = Annotated[str, Path(pattern="^direction-[0-9a-f]{16}$", description="as rows of its pictures name it")]
Png = Annotated[Literal["png"], Path(description="the exact pixels")]


@routes.get("/{direction}/visualisations", response_model=LinkedVisualPage, responses=ROWS)
def list_visualisations(reply: Reading, layer: LayerName, direction: DirectionName) -> Response:
    """List the pictures that were made of a direction, each with the largest product that it reaches."""
    growing = replace(reply, private=True)  # pictures are added without a new version of the atlas
    atlas, target = growing.session.atlas, DirectionId(layer, direction)
    return growing.rows(LinkedVisualRow, lambda: linked_visuals(atlas, target, visualisations(atlas, target)))


@routes.get("/{direction}/visualisations/{name}.{kind}", responses=PICTURE)
def read_visualisation(
    reply: Reading, layer: LayerName, direction: DirectionName, name: PictureName, kind: Png
) -> Response:
    """Return a stored picture of a direction; it never changes."""
    with reply.turn("read"):
        visual, content = visual_picture(reply.session.atlas, DirectionId(layer, direction), name)
    return reply.stored(visual.picture.sha256, f"image/{kind}", content)
