"""What people write about the units and images of an atlas: annotations, and collections of both."""

from collections.abc import Sequence
from dataclasses import replace

from unitscope_schemas.answers.annotations import (
    AnnotateQuestion,
    AnnotationPage,
    AnnotationRow,
    AnnotationsQuestion,
    Collection,
    CollectionItem,
    CollectionPage,
    CollectQuestion,
)
from unitscope_schemas.errors import NotFoundError, listing
from unitscope_schemas.units import UnitId
from unitscope_services.annotations import annotations, collections
from unitscope_services.annotations.annotations import Author
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.session import Session


def subject_named(atlas: Atlas, text: str) -> str:
    """Return a unit as `LAYER:UNIT`, or the whole id of an image by id or path; raises NotFoundError, UsageError."""
    layer, colon, channel = text.rpartition(":")
    if colon and channel.isdecimal() and atlas.manifest.layer(layer) is not None:
        unit = UnitId.parse(text)
        atlas.unit(unit)
        return str(unit)
    image = atlas.catalogue.known(text)
    if image is None:
        raise NotFoundError(f"{text!r} is neither a unit, LAYER:UNIT, nor an image of this atlas, by id or path")
    return image.image_id


def annotation_page(session: Session, question: AnnotationsQuestion) -> AnnotationPage:
    """Return the annotations that pass; upper and lower case are one."""
    subject = None if question.subject is None else [subject_named(session.atlas, question.subject)]
    rows = annotations.annotations_of(session.annotations, subject)
    if question.tag is not None:
        rows = [row for row in rows if question.tag in row.tags]
    if question.contains is not None:
        rows = [row for row in rows if holds(row, question.contains)]
    return AnnotationPage(rows=rows[: question.k], count=len(rows))


def holds(row: AnnotationRow, text: str) -> bool:
    """Return whether the name, the note or a tag of an annotation holds a text."""
    sought = text.casefold()
    return any(sought in own.casefold() for own in (row.name, row.note, *row.tags))


def annotate(session: Session, subject: str, question: AnnotateQuestion, author: str) -> AnnotationPage:
    """Write about a unit or an image of the atlas, and return what is said of it now."""
    whole = subject_named(session.atlas, subject)
    row = annotations.annotate(session.annotations, whole, question, Author(author, session.atlas.version))
    rows = [] if row is None else [row]
    return AnnotationPage(rows=rows, count=len(rows))


def import_annotations(session: Session, rows: Sequence[AnnotationRow], author: str) -> int:
    """Write annotations of a file, all or none, and return how many say another thing than before.

    Raises NotFoundError for units and images that the atlas does not have. Authors and times are those of the file.
    """
    writer = Author(author, session.atlas.version)
    subjects = _subjects_named(session.atlas, [row.subject for row in rows])
    whole = [
        replace(
            row,
            subject=subject,
            author=row.author or writer.name,
            time=row.time or writer.time,
            version=row.version or writer.version,
        )
        for row, subject in zip(rows, subjects, strict=True)
    ]
    return annotations.import_annotations(session.annotations, whole)


def import_items(session: Session, name: str, items: Sequence[CollectionItem], author: str) -> Collection:
    """Add units and images of a file to a collection, all or none; raises NotFoundError as `import_annotations`."""
    writer = Author(author, session.atlas.version)
    subjects = _subjects_named(session.atlas, [item.subject for item in items])
    whole = [
        replace(item, subject=subject, author=item.author or writer.name, time=item.time or writer.time)
        for item, subject in zip(items, subjects, strict=True)
    ]
    return collections.import_items(session.annotations, name, whole, writer)


def collection_page(session: Session) -> CollectionPage:
    """Return the collections of the atlas."""
    return CollectionPage(rows=collections.collections_of(session.annotations))


def collection(session: Session, name: str) -> Collection:
    """Return a collection of the atlas; raises NotFoundError that names those there are."""
    return collections.collection_named(session.annotations, name)


def collect(session: Session, name: str, question: CollectQuestion, author: str) -> Collection | None:
    """Change a collection, all of whose units and images must be of the atlas; return None once it is deleted.

    What was collected and left the atlas may be taken out, and stays in its place until then.
    """
    subjects = _subjects_of(session, name, question.subjects)
    whole = question.model_copy(update={"subjects": tuple(subjects)})
    return collections.collect(session.annotations, name, whole, Author(author, session.atlas.version))


def _subjects_named(atlas: Atlas, texts: Sequence[str]) -> list[str]:
    """Return whole names of all subjects; raises NotFoundError that names those that are none."""
    subjects, missing = list[str](), list[str]()
    for text in texts:
        try:
            subjects.append(subject_named(atlas, text))
        except NotFoundError:
            missing.append(text)
    if missing:
        raise NotFoundError(f"nothing is written: the atlas {atlas.name} does not have {listing(missing)}")
    return subjects


def _subjects_of(session: Session, name: str, subjects: Sequence[str]) -> list[str]:
    """Return whole names of subjects; those that the collection holds already are known by them."""
    try:
        known = {item.subject for item in collection(session, name).rows}
    except NotFoundError:
        known = set()
    return [text if text in known else subject_named(session.atlas, text) for text in subjects]
