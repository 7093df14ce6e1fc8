"""The units of a layer: one row each, and what a unit responds to."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from schemas.errors import UsageError
from schemas.units import UnitId
from schemas.web import Histogram, LabelPage, LabelRow, Order, PatchPage, PatchRow, UnitPage, UnitRow, UnitStatus
from services import units
from services.documentation import ROWS
from services.parameters import Channel, Cursor, K, LayerName, Limit, Where, row_count
from services.questions import patch_query, quantile_band
from services.replies import Reading
from services.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}/layers/{{layer}}/units", tags=["units"])

_SORTS = ", ".join(units.SORTS)


@routes.get("", response_model=UnitPage, responses=ROWS)
def list_units(
    reply: Reading,
    layer: LayerName,
    sort: Annotated[str, Query(description=f"one of {_SORTS}; with a leading - descending")] = "channel",
    status: UnitStatus | None = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Response:
    """One row per unit of a layer."""
    return reply.rows(UnitRow, lambda: units.unit_page(reply.asked.atlas, layer, sort, limit or 100, cursor, status))


@routes.get("/{channel}", response_model=UnitRow)
def read_unit(reply: Reading, layer: LayerName, channel: Channel) -> Response:
    """Status and statistics of one unit."""
    return reply.document(lambda: units.unit_row(layer, reply.asked.atlas.unit(UnitId(layer, channel))))


@routes.get("/{channel}/patches", response_model=PatchPage, responses=ROWS)
def list_patches(
    reply: Reading,
    layer: LayerName,
    channel: Channel,
    k: K = None,
    limit: Limit = None,
    quantile: Annotated[str | None, Query(description="band `a..b` of percentiles, 0 <= a <= b <= 1")] = None,
    label: str | None = None,
    where: Where = None,
    order: Order = "desc",
    seed: Annotated[int, Query(description="of the random order")] = 0,
    per_image: Annotated[int, Query(description="1: an image has one peak per unit")] = 1,
    duplicates: Annotated[str, Query(description="collapse near duplicates, or expand them")] = "collapse",
    cursor: Cursor = None,
) -> Response:
    """The patches that most excite a unit: one per image, in a total order."""
    if per_image != 1:
        raise UsageError(f"per_image is {per_image}; only 1 is possible: an atlas keeps one peak per unit and image")
    query = patch_query(row_count(limit, k, 9), quantile, label, order, seed, duplicates, cursor, where or ())
    return reply.rows(PatchRow, lambda: units.patches(reply.asked.atlas, UnitId(layer, channel), query))


@routes.get("/{channel}/histogram", response_model=Histogram)
def read_histogram(
    reply: Reading, layer: LayerName, channel: Channel, bins: Annotated[int, Query(ge=1, le=1024)] = 64
) -> Response:
    """The distribution of a unit's peaks: one peak per image, in equal bins, and exact quantiles."""
    return reply.document(lambda: units.histogram(reply.asked.atlas, UnitId(layer, channel), bins))


@routes.get("/{channel}/labels", response_model=LabelPage, responses=ROWS)
def list_labels(
    reply: Reading,
    layer: LayerName,
    channel: Channel,
    limit: Limit = None,
    quantile: Annotated[str | None, Query(description="band `a..b` of percentiles instead of the first ranks")] = None,
) -> Response:
    """The labels among a unit's first ranks, with lift: their share there over their share of the corpus."""
    band = quantile_band(quantile) if quantile else None
    return reply.rows(LabelRow, lambda: units.labels(reply.asked.atlas, UnitId(layer, channel), limit or 20, band))
