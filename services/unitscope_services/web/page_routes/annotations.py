"""The pages of what people write, and the forms that write it."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, Path, Query
from starlette.responses import RedirectResponse, Response

from unitscope_schemas.answers.annotations import AnnotateQuestion, CollectionName, CollectQuestion, Name, Note
from unitscope_schemas.questions import Text
from unitscope_schemas.units import UnitId
from unitscope_services.pages.annotations.collection_pages import annotations_view, collection_view
from unitscope_services.queries.annotations.annotations import annotate
from unitscope_services.queries.annotations.collections import collect, move_up
from unitscope_services.server.links import links_of
from unitscope_services.web.parameters import Channel, ImageName, LayerName
from unitscope_services.web.replies import Annotating, Reading, Reply
from unitscope_services.web.routes.annotations import author_of

routes = APIRouter(prefix="/a/{atlas}")

Revision = Annotated[int, Form(ge=0)]
_NO_STORE = {"Cache-Control": "no-store"}


@routes.get("/annotations")
def show_annotations(reply: Reading, tag: Annotated[Name | None, Query()] = None) -> Response:
    """Show what people wrote about the units and images of an atlas, and their collections."""
    changing = replace(reply, private=True)
    return changing.page("annotations.html", lambda: vars(annotations_view(changing.session, tag or None)))


@routes.get("/collections/{collection}")
def show_collection(reply: Reading, collection: Annotated[CollectionName, Path()]) -> Response:
    """Show a collection of units and images."""
    changing = replace(reply, private=True)
    may_write = reply.reader.may("annotate")
    return changing.page("collection.html", lambda: vars(collection_view(changing.session, collection, may_write)))


@routes.post("/layers/{layer}/units/{channel}/annotation")
def write_about_unit(
    reply: Annotating,
    layer: LayerName,
    channel: Channel,
    name: Annotated[Name, Form()] = "",
    note: Annotated[Note, Form()] = "",
    tags: Annotated[Text, Form()] = "",
    revision: Revision = 0,
) -> Response:
    """Keep what the form says of a unit, and lead back to its page."""
    unit = UnitId(layer, channel)
    _write(reply, str(unit), _question(name, note, tags, revision))
    return _lead_to(links_of(reply.session.atlas).unit(*unit))


@routes.post("/images/{image}/annotation")
def write_about_image(
    reply: Annotating,
    image: ImageName,
    name: Annotated[Name, Form()] = "",
    note: Annotated[Note, Form()] = "",
    tags: Annotated[Text, Form()] = "",
    revision: Revision = 0,
) -> Response:
    """Keep what the form says of an image, and lead back to its page."""
    _write(reply, image, _question(name, note, tags, revision))
    return _lead_to(links_of(reply.session.atlas).image(reply.session.atlas.find_image(image).image_id))


@routes.post("/collections/{collection}/up")
def put_before(
    reply: Annotating,
    collection: Annotated[CollectionName, Path()],
    subject: Annotated[Text, Form()],
    revision: Annotated[int, Form(ge=0)],
) -> Response:
    """Put an item before the one that stands before it, and lead back to the collection."""
    with reply.turn("read"):
        move_up(reply.session, collection, subject, revision, author_of(reply))
    return _lead_to(links_of(reply.session.atlas).collection(collection))


@routes.post("/collect")
def write_collection(
    reply: Annotating,
    collection: Annotated[CollectionName, Form()],
    subject: Annotated[Text | None, Form()] = None,
    note: Annotated[Note | None, Form()] = None,
    about: Annotated[Note | None, Form()] = None,
    remove: Annotated[bool, Form()] = False,
    revision: Annotated[int | None, Form(ge=0)] = None,
) -> Response:
    """Change a collection as a form says, and lead to its page."""
    subjects = () if subject is None else (subject,)
    question = CollectQuestion(subjects=subjects, note=note, about=about, remove=remove, revision=revision)
    with reply.turn("read"):
        after = collect(reply.session, collection, question, author_of(reply))
    links = links_of(reply.session.atlas)
    return _lead_to(links.annotations if after is None else links.collection(after.name))


def _question(name: str, note: str, tags: str, revision: int) -> AnnotateQuestion:
    """Return the question of a form, in which tags stand between commas."""
    words = tuple(filter(None, map(str.strip, tags.split(","))))
    return AnnotateQuestion(name=name, note=note.replace("\r\n", "\n"), tags=words, revision=revision)


def _write(reply: Reply, subject: str, question: AnnotateQuestion) -> None:
    with reply.turn("read"):
        annotate(reply.session, subject, question, author_of(reply))


def _lead_to(address: str) -> Response:
    return RedirectResponse(address, 303, headers=_NO_STORE)
