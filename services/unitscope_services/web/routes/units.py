"""The routes of a layer's units: one row each, and what a unit responds to."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from unitscope_schemas.answers.patches import Histogram, PatchPage, PatchRow, UnitPage, UnitRow
from unitscope_schemas.answers.provenance import Trace, TraceRow
from unitscope_schemas.answers.visuals import LinkedEigenPage, LinkedEigenRow, LinkedVisualPage, LinkedVisualRow
from unitscope_schemas.questions import (
    MOST_COUNT,
    EigenQuestion,
    HistogramQuestion,
    Text,
    TopPageQuestion,
    TraceQuestion,
    UnitsQuestion,
)
from unitscope_services.atlas.crops import encoded
from unitscope_services.figures.eigen import eigen_page, eigen_picture
from unitscope_services.queries import local_maxima, units
from unitscope_services.queries.provenance.trace import trace
from unitscope_services.queries.visuals import visual_picture, visualisations
from unitscope_services.server.linked import linked_eigen, linked_visuals
from unitscope_services.web.documentation import PICTURE, ROWS
from unitscope_services.web.parameters import LayerName, UnitInPath, paged
from unitscope_services.web.replies import Computing, Decomposing, QuickReading, Reading
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}/layers/{{layer}}/units", tags=["units"])


@routes.get("", response_model=UnitPage, responses=ROWS)
def list_units(reply: QuickReading, layer: LayerName, question: Annotated[UnitsQuestion, Query()]) -> Response:
    """List one row per unit of a layer, 100 on a page."""
    return reply.rows(UnitRow, lambda: units.unit_page(reply.session.atlas, layer, paged(question, 100)))


@routes.get("/{channel}", response_model=UnitRow)
def read_unit(reply: QuickReading, unit: UnitInPath) -> Response:
    """Return the status and statistics of one unit."""
    return reply.document(lambda: units.unit_row(unit.layer, reply.session.atlas.unit(unit)))


@routes.get("/{channel}/patches", response_model=PatchPage, responses=ROWS)
def list_patches(reply: QuickReading, unit: UnitInPath, question: Annotated[TopPageQuestion, Query()]) -> Response:
    """List the patches that most excite a unit: one per image, in a total order, unless `per_image` wants more."""
    asking = reply
    if question.per_image > 1:
        reply.demand("compute")
        asking = replace(reply, scope="compute", cost="compute")
    elif question.where or question.label is not None or question.order == "random":
        asking = replace(reply, cost="scan")
    return asking.rows(PatchRow, lambda: local_maxima.top(asking.session, unit, question))


@routes.get("/{channel}/trace", response_model=Trace, responses=ROWS)
def trace_peak(reply: Computing, unit: UnitInPath, question: Annotated[TraceQuestion, Query()]) -> Response:
    """Look at every link between the bytes of a picture and the peak of a unit on it, and record it anew."""
    asking = replace(reply, private=True)  # links break without a new version of the atlas
    return asking.rows(TraceRow, lambda: trace(asking.session, unit, question))


@routes.get("/{channel}/histogram", response_model=Histogram)
def read_histogram(reply: QuickReading, unit: UnitInPath, question: Annotated[HistogramQuestion, Query()]) -> Response:
    """Return the distribution of a unit's peaks: one peak per image, in equal bins, and exact quantiles."""
    return reply.document(lambda: units.histogram(reply.session.atlas, unit, question))


@routes.get("/{channel}/eigen", response_model=LinkedEigenPage, responses=ROWS)
def list_eigen_patches(reply: Decomposing, unit: UnitInPath, question: Annotated[EigenQuestion, Query()]) -> Response:
    """List the mean and principal components of a unit's first patches, aligned at their peaks, with shares of
    variance."""

    def make() -> LinkedEigenPage:
        return linked_eigen(reply.session.atlas, unit, question, eigen_page(reply.session, unit, question))

    return reply.rows(LinkedEigenRow, make)


@routes.get("/{channel}/eigen/{number}.{kind}", responses=PICTURE)
def read_eigen_patch(
    reply: Decomposing,
    unit: UnitInPath,
    number: Annotated[int, Path(ge=0, le=MOST_COUNT, description="component from 1; 0 is the mean")],
    kind: Annotated[Literal["png"], Path(description="the exact pixels")],
    question: Annotated[EigenQuestion, Query()],
) -> Response:
    """Return the picture of the mean of the patches, or of a component: grey is zero, each in its own scale."""
    return reply.picture(
        kind, f"image/{kind}", lambda: encoded(eigen_picture(reply.session, unit, question, number), kind)
    )


@routes.get("/{channel}/visualisations", response_model=LinkedVisualPage, responses=ROWS)
def list_visualisations(reply: Reading, unit: UnitInPath) -> Response:
    """List the pictures that were made of a unit, each with the activation it reaches beside the corpus."""
    growing = replace(reply, private=True)  # pictures are added without a new version of the atlas
    atlas = growing.session.atlas
    return growing.rows(LinkedVisualRow, lambda: linked_visuals(atlas, unit, visualisations(atlas, unit)))


@routes.get("/{channel}/visualisations/{name}.{kind}", responses=PICTURE)
def read_visualisation(
    reply: Reading,
    unit: UnitInPath,
    name: Annotated[Text, Path(description="id of the picture")],
    kind: Annotated[Literal["png"], Path(description="the exact pixels")],
) -> Response:
    """Return a stored picture of a unit; it never changes."""
    with reply.turn("read"):
        visual, content = visual_picture(reply.session.atlas, unit, name)
    return reply.stored(visual.picture.sha256, f"image/{kind}", content)
