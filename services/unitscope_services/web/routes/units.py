"""The units of a layer: one row each, and what a unit responds to."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from unitscope_schemas.answers.patches import Histogram, Order, PatchPage, PatchRow, UnitPage, UnitRow, UnitStatus
from unitscope_schemas.answers.visuals import EigenPage, EigenRow, VisualPage, VisualRow
from unitscope_schemas.questions import patch_query
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.crops import encoded
from unitscope_services.pages.eigen import COMPONENTS, PATCHES, EigenQuery, eigen_page, eigen_picture
from unitscope_services.queries import units
from unitscope_services.queries.local_maxima import MOST_PEAKS, several_patches
from unitscope_services.queries.visuals import visual_picture, visualisations
from unitscope_services.web.documentation import PICTURE, ROWS
from unitscope_services.web.parameters import Channel, Cursor, K, LayerName, Limit, Where, row_count
from unitscope_services.web.replies import QuickReading, Reading
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}/layers/{{layer}}/units", tags=["units"])

_SORTS = ", ".join(units.SORTS)


@routes.get("", response_model=UnitPage, responses=ROWS)
def list_units(
    reply: QuickReading,
    layer: LayerName,
    sort: Annotated[str, Query(description=f"one of {_SORTS}; with a leading - descending")] = "channel",
    status: UnitStatus | None = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Response:
    """One row per unit of a layer."""
    return reply.rows(UnitRow, lambda: units.unit_page(reply.session.atlas, layer, sort, limit or 100, cursor, status))


@routes.get("/{channel}", response_model=UnitRow)
def read_unit(reply: QuickReading, layer: LayerName, channel: Channel) -> Response:
    """Status and statistics of one unit."""
    return reply.document(lambda: units.unit_row(layer, reply.session.atlas.unit(UnitId(layer, channel))))


@routes.get("/{channel}/patches", response_model=PatchPage, responses=ROWS)
def list_patches(
    reply: QuickReading,
    layer: LayerName,
    channel: Channel,
    k: K = None,
    limit: Limit = None,
    quantile: Annotated[str | None, Query(description="band `a..b` of percentiles, 0 <= a <= b <= 1")] = None,
    label: str | None = None,
    where: Where = None,
    order: Order = "desc",
    seed: Annotated[int, Query(description="of the random order")] = 0,
    per_image: Annotated[
        int, Query(ge=1, le=MOST_PEAKS, description="peaks of each image; more than its stored one run the model")
    ] = 1,
    duplicates: Annotated[str, Query(description="collapse near duplicates, or expand them")] = "collapse",
    cursor: Cursor = None,
) -> Response:
    """The patches that most excite a unit: one per image, in a total order, unless several peaks are asked for."""
    query = patch_query(row_count(limit, k, 9), quantile, label, order, seed, duplicates, cursor, where or ())
    asking = reply
    if per_image > 1:
        reply.demand("compute")
        asking = replace(reply, scope="compute", quick=False)
    return asking.rows(PatchRow, lambda: several_patches(asking.session, UnitId(layer, channel), query, per_image))


@routes.get("/{channel}/histogram", response_model=Histogram)
def read_histogram(
    reply: QuickReading, layer: LayerName, channel: Channel, bins: Annotated[int, Query(ge=1, le=1024)] = 64
) -> Response:
    """The distribution of a unit's peaks: one peak per image, in equal bins, and exact quantiles."""
    return reply.document(lambda: units.histogram(reply.session.atlas, UnitId(layer, channel), bins))


def eigen_query(
    k: Annotated[int, Query(ge=2, le=1000, description="first patches")] = PATCHES,
    components: Annotated[int, Query(ge=1, le=64, description="at most")] = COMPONENTS,
    size: Annotated[
        int | None, Query(ge=1, description="side in input pixels; else the effective field, at most half the input")
    ] = None,
) -> EigenQuery:
    """What the address of eigen-patches asks for."""
    return EigenQuery(k, components, size)


EigenAsked = Annotated[EigenQuery, Depends(eigen_query)]


@routes.get("/{channel}/eigen", response_model=EigenPage, responses=ROWS)
def list_eigen_patches(reply: Reading, layer: LayerName, channel: Channel, query: EigenAsked) -> Response:
    """Mean and principal components of a unit's first patches, aligned at their peaks, with shares of the variance."""

    def make() -> EigenPage:
        with reply.app_state.pictures:
            return eigen_page(reply.session, UnitId(layer, channel), query)

    return reply.rows(EigenRow, make)


@routes.get("/{channel}/eigen/{number}.{kind}", responses=PICTURE)
def read_eigen_patch(
    reply: Reading,
    layer: LayerName,
    channel: Channel,
    number: Annotated[int, Path(description="component from 1; 0 is the mean")],
    kind: Annotated[Literal["png"], Path(description="the exact pixels")],
    query: EigenAsked,
) -> Response:
    """The mean of the patches, or a component: grey is zero, each in its own scale."""

    def make() -> bytes:
        with reply.app_state.pictures:
            return encoded(eigen_picture(reply.session, UnitId(layer, channel), query, number), kind)

    return reply.picture(kind, f"image/{kind}", make)


@routes.get("/{channel}/visualisations", response_model=VisualPage, responses=ROWS)
def list_visualisations(reply: Reading, layer: LayerName, channel: Channel) -> Response:
    """The pictures that were made of a unit, each with the activation it reaches beside the corpus."""
    growing = replace(reply, private=True)  # pictures are added without a new version of the atlas
    return growing.rows(VisualRow, lambda: visualisations(reply.session.atlas, UnitId(layer, channel)))


@routes.get("/{channel}/visualisations/{name}.{kind}", responses=PICTURE)
def read_visualisation(
    reply: Reading,
    layer: LayerName,
    channel: Channel,
    name: Annotated[str, Path(description="id of the picture")],
    kind: Annotated[Literal["png"], Path(description="the exact pixels")],
) -> Response:
    """A stored picture of a unit; it never changes."""
    visual, content = visual_picture(reply.session.atlas, UnitId(layer, channel), name)
    return reply.stored(visual.picture.sha256, f"image/{kind}", content)
