"""What is said of units and images: listed, written and imported."""

from collections.abc import Sequence
from dataclasses import replace

from unitscope_schemas.answers.annotations import (
    AnnotateQuestion,
    AnnotationPage,
    AnnotationRow,
    AnnotationsQuestion,
)
from unitscope_services.annotations import annotations
from unitscope_services.annotations.annotations import Author
from unitscope_services.queries.annotations.subjects import subject_named, subjects_named
from unitscope_services.queries.session import Session


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
    subjects = subjects_named(session.atlas, [row.subject for row in rows])
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
