"""The routes of what people write: annotations of units and images, and collections of both."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from unitscope_schemas.answers.annotations import (
    AnnotateQuestion,
    AnnotationPage,
    AnnotationRow,
    AnnotationsQuestion,
    Collection,
    CollectionItem,
    CollectionName,
    CollectionPage,
    CollectionRow,
    CollectQuestion,
)
from unitscope_services.queries.annotations.annotations import annotate, annotation_page
from unitscope_services.queries.annotations.collections import collect, collection_page
from unitscope_services.queries.annotations.collections import collection as collection_named
from unitscope_services.server import caching
from unitscope_services.web.documentation import ROWS
from unitscope_services.web.parameters import ImageName, UnitInPath
from unitscope_services.web.replies import Annotating, Reading, Reply
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}", tags=["annotations"])

CollectionInPath = Annotated[CollectionName, Path()]


@routes.get("/annotations", response_model=AnnotationPage, responses=ROWS)
def list_annotations(reply: Reading, question: Annotated[AnnotationsQuestion, Query()]) -> Response:
    """List what is written about units and images, the last that was written first."""
    return _rows(reply, AnnotationRow, lambda: annotation_page(reply.session, question))


@routes.put("/layers/{layer}/units/{channel}/annotation", response_model=AnnotationPage)
def annotate_unit(reply: Annotating, unit: UnitInPath, question: AnnotateQuestion) -> Response:
    """Write a name, a note or tags of a unit; the answer is what is said of it now."""
    return _written(reply, lambda: annotate(reply.session, str(unit), question, author_of(reply)))


@routes.put("/images/{image}/annotation", response_model=AnnotationPage)
def annotate_image(reply: Annotating, image: ImageName, question: AnnotateQuestion) -> Response:
    """Write a name, a note or tags of an image; the answer is what is said of it now."""
    return _written(reply, lambda: annotate(reply.session, image, question, author_of(reply)))


@routes.get("/collections", response_model=CollectionPage, responses=ROWS)
def list_collections(reply: Reading) -> Response:
    """List the collections of units and images."""
    return _rows(reply, CollectionRow, lambda: collection_page(reply.session))


@routes.get("/collections/{collection}", response_model=Collection, responses=ROWS)
def read_collection(reply: Reading, collection: CollectionInPath) -> Response:
    """Return a collection with its units and images, in their order."""
    return _rows(reply, CollectionItem, lambda: collection_named(reply.session, collection))


@routes.post("/collections/{collection}", response_model=Collection)
def change_collection(reply: Annotating, collection: CollectionInPath, question: CollectQuestion) -> Response:
    """Add units and images to a collection, take them out, or arrange them; the first change makes it."""

    def change() -> Collection | None:
        return collect(reply.session, collection, question, author_of(reply))

    return _written(reply, change)


def author_of(reply: Reply) -> str:
    """Return the name under which a reader writes: that of the key, empty at a server without keys."""
    return reply.reader.name or ""


def _rows(reply: Reply, kind: type, make: Callable[[], Any]) -> Response:
    return replace(reply, private=True).rows(kind, make)  # people write without a new version of the atlas


def _written(reply: Reply, write: Callable[[], object | None]) -> Response:
    """Return what is there after a change; nothing, where it took everything away."""
    with reply.turn("read"):
        after = write()
    if after is None:
        return Response(status_code=204, headers={"Cache-Control": caching.PRIVATE})
    return replace(reply, private=True).document(lambda: after)
