"""Images of the corpus: what they are, what they excite, and what resembles them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from unitscope_schemas import cursors
from unitscope_schemas.answers.patches import ActivationMap, ExplainPage, ExplainRow, NeighborPage, NeighborRow
from unitscope_schemas.answers.served import ImagePage, ImageRow
from unitscope_schemas.geometry import Box, Location
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.crops import encoded
from unitscope_services.atlas.image_filter import ImageFilter
from unitscope_services.encoding.cells import map_picture
from unitscope_services.queries.session import Subject
from unitscope_services.web.documentation import PICTURE, ROWS
from unitscope_services.web.parameters import BoxText, Cursor, ImageName, K, Limit, Passing, box_of, row_count
from unitscope_services.web.pictures import MEDIA_TYPES
from unitscope_services.web.replies import Computing, Reading, Reply
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}/images", tags=["images"])

LayerQuery = Annotated[str | None, Query(description="only this layer")]
EmbeddedLayer = Annotated[str | None, Query(description="the layer whose embeddings are indexed")]
Exact = Annotated[bool, Query(description="scan all vectors instead of asking the index")]


@dataclass(frozen=True)
class Nearest:
    """What is asked about a picture's nearest patches."""

    layer: str | None
    box: Box | None
    limit: int
    exact: bool
    passing: ImageFilter


@routes.get("", response_model=ImagePage, responses=ROWS)
def list_images(
    reply: Reading,
    passing: Passing,
    path: Annotated[str | None, Query(description="the image with this path below the corpus root")] = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Response:
    """The images of the corpus in order of their ids, or the one with a given path."""

    def page() -> ImagePage:
        atlas = reply.session.atlas
        if path is not None:
            return ImagePage(rows=[atlas.image_row(atlas.image_by_path(path))], next=None)
        return image_page(atlas, passing, limit or 100, cursor)

    return reply.rows(ImageRow, page)


@routes.get("/{image}", response_model=ImageRow)
def read_image(reply: Reading, image: ImageName) -> Response:
    """One image of the corpus."""
    return reply.document(lambda: reply.session.atlas.image_row(reply.session.atlas.find_image(image)))


@routes.get("/{image}/units", response_model=ExplainPage, responses=ROWS)
def list_image_units(
    reply: Reading,
    image: ImageName,
    passing: Passing,
    layer: LayerQuery = None,
    k: K = None,
    limit: Limit = None,
) -> Response:
    """The units that an image excites most unusually, by percentile over the corpus, or over what passes of it; of a
    bounded atlas this runs the model."""
    asking = reply
    if not reply.session.stores_peaks:
        reply.demand("compute")
        asking = replace(reply, scope="compute")
    return explained(asking, lambda: _subject(reply, image), layer, row_count(limit, k, 20), passing)


@routes.get("/{image}/map", response_model=ActivationMap)
def read_image_map(reply: Computing, image: ImageName, layer: str, unit: int) -> Response:
    """A unit's activation at every location of its grid; runs the model."""
    return mapped(reply, lambda: _subject(reply, image), UnitId(layer, unit))


@routes.get("/{image}/map.png", responses=PICTURE)
def read_image_map_picture(reply: Computing, image: ImageName, layer: str, unit: int) -> Response:
    """The same as a picture to lay over the image: a pixel a cell and a border, clear where most active."""
    return mapped_picture(reply, lambda: _subject(reply, image), UnitId(layer, unit))


@routes.get("/{image}/cells", response_model=ExplainPage, responses=ROWS)
def list_cell_units(
    reply: Computing, image: ImageName, layer: str, row: int, col: int, k: K = None, limit: Limit = None
) -> Response:
    """The units of a layer that are most unusually active at one cell of its grid; runs the model."""
    return at_cell(reply, lambda: _subject(reply, image), layer, Location(row, col), row_count(limit, k, 20))


@routes.get("/{image}/neighbors", response_model=NeighborPage, responses=ROWS)
def list_image_neighbors(
    reply: Reading,
    image: ImageName,
    passing: Passing,
    layer: EmbeddedLayer = None,
    box: BoxText = None,
    k: K = None,
    limit: Limit = None,
    exact: Exact = False,
) -> Response:
    """The images with the patch most similar to a box of this one; a box of one's own runs the model."""
    wanted = box_of(box)

    def subject() -> Subject:
        found = _subject(reply, image)
        if wanted is not None and found.image is not None and not reply.session.search.stored(found.image, wanted):
            reply.demand("compute")
        return found

    asking = reply if wanted is None else replace(reply, scope="compute")
    session = Nearest(layer, wanted, row_count(limit, k, 9), exact, passing)
    return neighboring(asking, subject, session)


def image_page(atlas: Atlas, passing: ImageFilter, limit: int, cursor: str | None) -> ImagePage:
    """A page of the images that pass, in order of their ids."""
    question = f"{atlas.version} images {passing}"
    rows = atlas.image_list(passing, cursors.decode(cursor, question), limit + 1)
    following = cursors.encode(rows[limit - 1].image, question) if len(rows) > limit else None
    return ImagePage(rows=[atlas.image_row(row) for row in rows[:limit]], next=following)


def explained(
    reply: Reply, subject: Callable[[], Subject], layer: str | None, limit: int, passing: ImageFilter
) -> Response:
    """The reply that explains a picture."""
    return reply.rows(ExplainRow, lambda: reply.session.explain(subject(), layer, limit, passing))


def mapped(reply: Reply, subject: Callable[[], Subject], unit: UnitId) -> Response:
    """The reply with a unit's map on a picture."""

    def make() -> ActivationMap:
        reply.session.atlas.unit(unit)
        return reply.session.activation_map(subject(), unit)

    return reply.document(make)


def mapped_picture(reply: Reply, subject: Callable[[], Subject], unit: UnitId) -> Response:
    """The reply with a unit's map as a picture."""
    return reply.picture(
        "png", MEDIA_TYPES["png"], lambda: encoded(map_picture(reply.session.activation_map(subject(), unit)), "png")
    )


def at_cell(reply: Reply, subject: Callable[[], Subject], layer: str, cell: Location, limit: int) -> Response:
    """The reply with the units at a cell."""
    return reply.rows(ExplainRow, lambda: reply.session.at_cell(subject(), layer, cell, limit))


def neighboring(reply: Reply, subject: Callable[[], Subject], session: Nearest) -> Response:
    """The reply with the nearest patches of a picture."""

    def make() -> NeighborPage:
        reply.session.layer_of_embedding(session.layer)
        found = subject()
        return reply.app_state.telemetry.timed(
            lambda: reply.session.neighbors(found, session.box, session.limit, session.exact, session.passing)
        )

    return reply.rows(NeighborRow, make)


def _subject(reply: Reply, image: str) -> Subject:
    return Subject(reply.session.atlas.find_image(image), None)
