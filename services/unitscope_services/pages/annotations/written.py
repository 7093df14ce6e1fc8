"""What the page of a unit or an image shows of what people wrote about it, with the forms that write."""

from dataclasses import dataclass

from unitscope_schemas.answers.annotations import AnnotationRow, AnnotationsQuestion
from unitscope_schemas.errors import UnitscopeError
from unitscope_schemas.units import UnitId
from unitscope_services.annotations.collections import collections_of
from unitscope_services.queries.annotations.annotations import annotation_page
from unitscope_services.queries.session import Session
from unitscope_services.server.links import Links, links_of

_SHOWN = 24
"""Most annotations that a page of found things shows."""


@dataclass(frozen=True)
class Link:
    """A name that leads to a page."""

    name: str
    href: str


@dataclass(frozen=True)
class WrittenAbout:
    """What is said of a unit or an image, and the collections that hold it."""

    subject: str
    row: AnnotationRow | None
    collections: list[Link]
    others: list[str]
    """Collections that do not hold it."""
    writes: bool
    """Whether the reader may write, and the server can."""
    action: str
    """Address that the form of the annotation is sent to."""
    collect: str
    """Address that the form of a collection is sent to."""
    problem: str = ""
    """Reason why the file of annotations cannot be read."""


@dataclass(frozen=True)
class WrittenMatches:
    """Annotations that hold a text, each with a link to what it is about; or the reason why none can be read."""

    rows: list[tuple[Link, AnnotationRow]]
    problem: str = ""


def written_about(session: Session, subject: str, may_write: bool) -> WrittenAbout:
    """Return what people wrote about a unit or an image by its whole name; a file that is damaged is told of."""
    links = links_of(session.atlas)
    writes = may_write and session.annotations.is_writable
    about = f"{subject_page(links, subject)}/annotation"
    try:
        rows = annotation_page(session, AnnotationsQuestion(subject=subject)).rows
        holding = [row.name for row in collections_of(session.annotations, subject)]
        every = [row.name for row in collections_of(session.annotations)]
    except UnitscopeError as error:
        return WrittenAbout(subject, None, [], [], False, about, links.annotations, str(error))
    return WrittenAbout(
        subject=subject,
        row=rows[0] if rows else None,
        collections=[Link(name, links.collection(name)) for name in holding],
        others=[name for name in every if name not in holding],
        writes=writes,
        action=about,
        collect=f"{links.home}/collect",
    )


def written_with(session: Session, text: str) -> WrittenMatches:
    """Return the first annotations that hold a text; a file that is damaged is told of."""
    if not text:
        return WrittenMatches([])
    links = links_of(session.atlas)
    try:
        rows = annotation_page(session, AnnotationsQuestion(contains=text, k=_SHOWN)).rows
    except UnitscopeError as error:
        return WrittenMatches([], str(error))
    return WrittenMatches(
        [(Link(subject_words(session, row.subject), subject_page(links, row.subject)), row) for row in rows]
    )


def subject_page(links: Links, subject: str) -> str:
    """Return the page of a unit, or of an image by its whole id."""
    return links.unit(*UnitId.parse(subject)) if ":" in subject else links.image(subject)


def subject_words(session: Session, subject: str) -> str:
    """Return a unit as it is written, and of an image its path; its id where it has left the atlas."""
    if ":" in subject:
        return subject
    image = session.atlas.image_by_id(subject)
    return subject[:12] if image is None else image.path
