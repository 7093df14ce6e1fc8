"""The routes of what sets units apart and what they share: labels, bands, facets, similar units, comparisons."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from unitscope_schemas.answers.patches import LabelPage, LabelRow
from unitscope_schemas.answers.relations import (
    BandPage,
    BandRow,
    ComparisonPage,
    ComparisonRow,
    FacetPage,
    FacetRow,
    MatchPage,
    MatchRow,
    SelectivePage,
    SelectiveRow,
    SelectivityPage,
    SelectivityRow,
    SimilarPage,
    SimilarRow,
)
from unitscope_schemas.questions import (
    MOST_ROWS,
    BandsQuestion,
    ComparisonQuestion,
    FacetsQuestion,
    LabelsQuestion,
    SelectiveQuestion,
    SelectivityQuestion,
    SimilarQuestion,
    Text,
)
from unitscope_services.queries import compare, exemplars, facets, labels, similar
from unitscope_services.web.documentation import ROWS
from unitscope_services.web.parameters import UnitInPath, paged
from unitscope_services.web.replies import Faceting, Reading, Scanning
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}", tags=["similarity"])

_UNIT = "/layers/{layer}/units/{channel}"


@routes.get(f"{_UNIT}/labels", response_model=LabelPage, responses=ROWS)
def list_labels(reply: Scanning, unit: UnitInPath, question: Annotated[LabelsQuestion, Query()]) -> Response:
    """List the labels among a unit's first ranks with their lift: their share there over their share of the corpus.

    The lift has a 95 % interval.
    """
    return reply.rows(LabelRow, lambda: labels.labels(reply.session.atlas, unit, question))


@routes.get(f"{_UNIT}/selectivity", response_model=SelectivityPage, responses=ROWS)
def list_selectivity(reply: Scanning, unit: UnitInPath, question: Annotated[SelectivityQuestion, Query()]) -> Response:
    """List labels by the chance, over all ranks, that their images excite the unit more than others do."""
    return reply.rows(SelectivityRow, lambda: labels.selectivity(reply.session.atlas, unit, question))


@routes.get("/selective", response_model=SelectivePage, responses=ROWS)
def list_selective_units(reply: Scanning, question: Annotated[SelectiveQuestion, Query()]) -> Response:
    """List units whose first ranks hold a label most above its share of the corpus, by the lower end of the lift."""
    return reply.rows(SelectiveRow, lambda: labels.selective_units(reply.session.atlas, paged(question, 100)))


@routes.get(f"{_UNIT}/bands", response_model=BandPage, responses=ROWS)
def list_bands(reply: Scanning, unit: UnitInPath, question: Annotated[BandsQuestion, Query()]) -> Response:
    """List examples from the whole distribution of a unit: some patches of each band of percentiles, highest first."""
    return reply.rows(BandRow, lambda: exemplars.bands(reply.session.atlas, unit, question))


@routes.get(f"{_UNIT}/similar", response_model=SimilarPage, responses=ROWS)
def list_similar(reply: Scanning, unit: UnitInPath, question: Annotated[SimilarQuestion, Query()]) -> Response:
    """List units most like a unit. Co-activation is computed ahead by `unitscope similar`; weights load the model."""
    asking = reply
    if question.by == "weights":
        reply.demand("compute")
        asking = replace(reply, scope="compute", cost="weights")
    return asking.rows(SimilarRow, lambda: similar.similar(asking.session, unit, question))


@routes.get(f"{_UNIT}/facets", response_model=FacetPage, responses=ROWS)
def list_facets(reply: Faceting, unit: UnitInPath, question: Annotated[FacetsQuestion, Query()]) -> Response:
    """List a unit's first exemplars in groups that look alike where it peaks: one unit, maybe several things."""
    return reply.rows(FacetRow, lambda: facets.facets(reply.session, unit, question))


@routes.get("/comparisons", response_model=ComparisonPage, responses=ROWS)
def list_comparisons(reply: Reading) -> Response:
    """List the stored comparisons of the atlas with others; `unitscope compare` makes them."""
    # new ones come without a new version of the atlas, so nobody may keep the list
    return replace(reply, private=True).rows(ComparisonRow, lambda: compare.comparisons(reply.session.atlas))


@routes.get("/comparisons/{comparison}", response_model=MatchPage, responses=ROWS)
def read_comparison(
    reply: Scanning,
    comparison: Annotated[Text, Path(description="id of a stored comparison")],
    question: Annotated[ComparisonQuestion, Query()],
) -> Response:
    """Return a stored comparison, unit by unit: best match with runner-up, rank correlation and shared exemplars."""
    page = paged(question, MOST_ROWS)
    return reply.rows(MatchRow, lambda: compare.comparison(reply.session.atlas, comparison, page))
