"""What sets units apart and what they share: labels, bands, facets, similar units, comparisons with other atlases."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from unitscope_schemas.answers.patches import LabelPage, LabelRow, Order
from unitscope_schemas.answers.relations import (
    BandPage,
    BandRow,
    ComparisonPage,
    ComparisonRow,
    FacetPage,
    FacetRow,
    Likeness,
    MatchPage,
    MatchRow,
    SelectivePage,
    SelectiveRow,
    SelectivityPage,
    SelectivityRow,
    SimilarPage,
    SimilarRow,
)
from unitscope_schemas.questions import patch_query, quantile_band
from unitscope_schemas.units import UnitId
from unitscope_services.queries import compare, labels
from unitscope_services.queries.bands import MOST_BANDS, bands
from unitscope_services.queries.facets import facets
from unitscope_services.queries.similar import similar
from unitscope_services.web.documentation import ROWS
from unitscope_services.web.parameters import MOST_ROWS, Channel, Cursor, K, LayerName, Limit, Where, row_count
from unitscope_services.web.replies import Reading
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}", tags=["kin"])

_MATCH_SORTS = ", ".join(compare.SORTS)
_UNIT = "/layers/{layer}/units/{channel}"


@routes.get(f"{_UNIT}/labels", response_model=LabelPage, responses=ROWS)
def list_labels(
    reply: Reading,
    layer: LayerName,
    channel: Channel,
    ranks: Annotated[
        int | None, Query(ge=1, description="counted now over so many first ranks; else as stored")
    ] = None,
    quantile: Annotated[str | None, Query(description="band `a..b` of percentiles instead of the first ranks")] = None,
    limit: Limit = None,
) -> Response:
    """The labels among a unit's first ranks, with lift, their share there over their share of the corpus, and its
    95 % interval."""
    unit, band = UnitId(layer, channel), quantile_band(quantile) if quantile else None
    return reply.rows(LabelRow, lambda: labels.labels(reply.session.atlas, unit, limit or 20, ranks, band))


@routes.get(f"{_UNIT}/selectivity", response_model=SelectivityPage, responses=ROWS)
def list_selectivity(reply: Reading, layer: LayerName, channel: Channel, limit: Limit = None) -> Response:
    """Labels by the chance, over all ranks, that their images excite the unit more than others do."""
    unit = UnitId(layer, channel)
    return reply.rows(SelectivityRow, lambda: labels.selectivity(reply.session.atlas, unit, limit or 20))


@routes.get("/selective", response_model=SelectivePage, responses=ROWS)
def list_selective_units(
    reply: Reading,
    label: str,
    layer: Annotated[str | None, Query(description="only units of this layer")] = None,
    limit: Limit = None,
) -> Response:
    """The units whose first ranks hold a label most above its share of the corpus, by the lower end of the lift."""
    return reply.rows(SelectiveRow, lambda: labels.selective_units(reply.session.atlas, label, layer, limit or 100))


@routes.get(f"{_UNIT}/bands", response_model=BandPage, responses=ROWS)
def list_bands(
    reply: Reading,
    layer: LayerName,
    channel: Channel,
    count: Annotated[int, Query(ge=1, le=MOST_BANDS, alias="bands", description="with equally many images")] = 10,
    k: Annotated[int, Query(ge=1, le=100, description="patches of each band")] = 3,
    label: str | None = None,
    where: Where = None,
    order: Annotated[Order, Query(description="within each band")] = "random",
    seed: Annotated[int, Query(description="of the random order")] = 0,
    duplicates: Annotated[str, Query(description="collapse near duplicates, or expand them")] = "collapse",
) -> Response:
    """Examples from the whole distribution of a unit: some patches of each band of percentiles, highest first."""
    query = patch_query(k, None, label, order, seed, duplicates, where=where or ())
    return reply.rows(BandRow, lambda: bands(reply.session.atlas, UnitId(layer, channel), count, query))


@routes.get(f"{_UNIT}/similar", response_model=SimilarPage, responses=ROWS)
def list_similar(
    reply: Reading,
    layer: LayerName,
    channel: Channel,
    by: Annotated[
        Likeness, Query(description="rank correlation of peaks, shared exemplars, or cosine of incoming weights")
    ] = "coactivation",
    among: Annotated[str | None, Query(description="the layer whose units are compared; else its own")] = None,
    k: K = None,
    limit: Limit = None,
) -> Response:
    """The units most like a unit. Co-activation is computed ahead, by `unitscope similar`; weights load the model."""
    asking = reply
    if by == "weights":
        reply.demand("compute")
        asking = replace(reply, scope="compute")
    unit = UnitId(layer, channel)
    return asking.rows(SimilarRow, lambda: similar(asking.session, unit, by, among, row_count(limit, k, 9)))


@routes.get(f"{_UNIT}/facets", response_model=FacetPage, responses=ROWS)
def list_facets(reply: Reading, layer: LayerName, channel: Channel) -> Response:
    """A unit's first exemplars in groups that look alike where it peaks: one unit, maybe several things."""
    return reply.rows(FacetRow, lambda: facets(reply.session, UnitId(layer, channel)))


@routes.get("/comparisons", response_model=ComparisonPage, responses=ROWS)
def list_comparisons(reply: Reading) -> Response:
    """The stored comparisons of the atlas with others; `unitscope compare` makes them."""
    # new ones come without a new version of the atlas, so nobody may keep the list
    return replace(reply, private=True).rows(ComparisonRow, lambda: compare.comparisons(reply.session.atlas))


@routes.get("/comparisons/{comparison}", response_model=MatchPage, responses=ROWS)
def read_comparison(
    reply: Reading,
    comparison: Annotated[str, Path(description="id of a stored comparison")],
    layer: Annotated[str | None, Query(description="only units of this layer")] = None,
    sort: Annotated[str, Query(description=f"one of {_MATCH_SORTS}; with a leading - descending")] = "channel",
    limit: Limit = None,
    cursor: Cursor = None,
) -> Response:
    """Two atlases, unit by unit: best match with runner-up, rank correlation and shared exemplars."""
    return reply.rows(
        MatchRow,
        lambda: compare.comparison(reply.session.atlas, comparison, layer, limit or MOST_ROWS, cursor, sort),
    )
