"""The routes of the corpus's images: what they are, what they excite, and what resembles them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from unitscope_schemas.answers.patches import ActivationMap, ExplainPage, ExplainRow, NeighborPage, NeighborRow
from unitscope_schemas.answers.served import ImagePage, ImageRow
from unitscope_schemas.questions import CellQuestion, ExplainQuestion, ImagesQuestion, MapQuestion, NeighborsQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.crops import encoded
from unitscope_services.encoding.cells import map_picture
from unitscope_services.queries.images import image_page
from unitscope_services.queries.session import Subject
from unitscope_services.web.documentation import PICTURE, ROWS
from unitscope_services.web.parameters import ImageName, paged
from unitscope_services.web.pictures import MEDIA_TYPES
from unitscope_services.web.replies import Computing, Reading, Reply, Scanning
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}/images", tags=["images"])

Explain = Annotated[ExplainQuestion, Query()]
Map = Annotated[MapQuestion, Query()]
Cell = Annotated[CellQuestion, Query()]
Neighbors = Annotated[NeighborsQuestion, Query()]


@routes.get("", response_model=ImagePage, responses=ROWS)
def list_images(reply: Reading, question: Annotated[ImagesQuestion, Query()]) -> Response:
    """List the images of the corpus in order of their ids, 100 on a page, or the one with a given path."""
    return reply.rows(ImageRow, lambda: image_page(reply.session.atlas, paged(question, 100)))


@routes.get("/{image}", response_model=ImageRow)
def read_image(reply: Reading, image: ImageName) -> Response:
    """Return one image of the corpus in one row."""
    return reply.document(lambda: reply.session.atlas.image_row(reply.session.atlas.find_image(image)))


@routes.get("/{image}/units", response_model=ExplainPage, responses=ROWS)
def list_image_units(reply: Scanning, image: ImageName, question: Explain) -> Response:
    """List the units that an image excites most unusually, by percentile over the images that pass.

    A bounded atlas runs the model for it.
    """
    asking = reply
    if not reply.session.stores_peaks:
        reply.demand("compute")
        asking = replace(reply, scope="compute", cost="compute")
    return explained(asking, lambda: _subject(reply, image), question)


@routes.get("/{image}/map", response_model=ActivationMap)
def read_image_map(reply: Computing, image: ImageName, question: Map) -> Response:
    """Return a unit's activation at every location of its grid; runs the model."""
    return mapped(reply, lambda: _subject(reply, image), question)


@routes.get("/{image}/map.png", responses=PICTURE)
def read_image_map_picture(reply: Computing, image: ImageName, question: Map) -> Response:
    """Return a unit's map as a picture to lay over the image: a pixel a cell and a border, clear where most active."""
    return mapped_picture(reply, lambda: _subject(reply, image), question)


@routes.get("/{image}/cells", response_model=ExplainPage, responses=ROWS)
def list_cell_units(reply: Computing, image: ImageName, question: Cell) -> Response:
    """List the units of a layer that are most unusually active at one cell of its grid; runs the model."""
    return at_cell(reply, lambda: _subject(reply, image), question)


@routes.get("/{image}/neighbors", response_model=NeighborPage, responses=ROWS)
def list_image_neighbors(reply: Reading, image: ImageName, question: Neighbors) -> Response:
    """List the images with the patch most similar to a box of this one; a box that is not stored runs the model."""
    box = question.region

    def subject() -> Subject:
        resolved = _subject(reply, image)
        if box is not None and resolved.image is not None and not reply.session.search.stored(resolved.image, box):
            reply.demand("compute")
        return resolved

    asking = reply if box is None else replace(reply, scope="compute", cost="compute")
    return neighboring(asking, subject, question)


def explained(reply: Reply, subject: Callable[[], Subject], question: ExplainQuestion) -> Response:
    """Return the reply that explains a picture."""
    return reply.rows(ExplainRow, lambda: reply.session.explain(subject(), question))


def mapped(reply: Reply, subject: Callable[[], Subject], question: MapQuestion) -> Response:
    """Return the reply with a unit's map on a picture."""
    unit = UnitId(question.layer, question.unit)

    def make() -> ActivationMap:
        reply.session.atlas.unit(unit)
        return reply.session.activation_map(subject(), unit)

    return reply.document(make)


def mapped_picture(reply: Reply, subject: Callable[[], Subject], question: MapQuestion) -> Response:
    """Return the reply with a unit's map as a picture."""
    unit = UnitId(question.layer, question.unit)
    return reply.picture(
        "png", MEDIA_TYPES["png"], lambda: encoded(map_picture(reply.session.activation_map(subject(), unit)), "png")
    )


def at_cell(reply: Reply, subject: Callable[[], Subject], question: CellQuestion) -> Response:
    """Return the reply with the units at a cell."""
    return reply.rows(ExplainRow, lambda: reply.session.at_cell(subject(), question))


def neighboring(reply: Reply, subject: Callable[[], Subject], question: NeighborsQuestion) -> Response:
    """Return the reply with the nearest patches of a picture."""

    def make() -> NeighborPage:
        reply.session.check_embedded(question.layer)
        resolved = subject()
        return reply.app_state.telemetry.timed(lambda: reply.session.neighbors(resolved, question))

    scans = question.exact or bool(question.where) or question.label is not None
    return (replace(reply, cost="exact") if scans else reply).rows(NeighborRow, make)


def _subject(reply: Reply, image: str) -> Subject:
    return Subject(reply.session.atlas.find_image(image), None)
