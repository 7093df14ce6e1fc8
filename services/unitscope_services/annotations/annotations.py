"""The annotations of units and images in a file: what is said of each, and by whom."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from unitscope_schemas.answers.annotations import AnnotateQuestion, AnnotationRow
from unitscope_schemas.errors import AtlasError, ConflictError, UsageError
from unitscope_services.annotations.annotation_file import AnnotationFile

_COLUMNS = "subject, name, note, tags, author, time, version, revision"
_CURRENT = f"""SELECT {_COLUMNS} FROM annotation
WHERE revision IN (SELECT max(revision) FROM annotation GROUP BY subject) AND NOT removed"""


@dataclass(frozen=True)
class Author:
    """Who writes, and the version of the atlas that they have before them."""

    name: str
    version: str

    @property
    def time(self) -> str:
        """The present time, to the second."""
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def annotations_of(file: AnnotationFile, subjects: Sequence[str] | None = None) -> list[AnnotationRow]:
    """Return what is said now, of some subjects or of all, the last that was written first; raises AtlasError."""
    with file.reading() as connection:
        if connection is None:
            return []
        if subjects is None:
            return list(map(_row, connection.execute(f"{_CURRENT} ORDER BY revision DESC")))
        rows = [_current(connection, subject) for subject in dict.fromkeys(subjects)]
        return [row for row in rows if row is not None]


def annotate(file: AnnotationFile, subject: str, question: AnnotateQuestion, author: Author) -> AnnotationRow | None:
    """Write about a subject and return what is said of it now, None where that was taken away.

    Raises ConflictError where another has written since the revision that the question names.
    """
    if not question.remove and question.name is None and question.note is None and question.tags is None:
        raise UsageError("nothing is written: give a name, a note or tags, or remove")
    with file.writing() as connection:
        before = _current(connection, subject)
        check_revision(subject, question.revision, before.revision if before else 0)
        old = before or AnnotationRow(subject, "", "", [], "", "", "", 0)
        row = replace(
            old,
            name=old.name if question.name is None else question.name,
            note=old.note if question.note is None else question.note.strip(),
            tags=old.tags if question.tags is None else sorted({tag for tag in question.tags if tag}),
            author=author.name,
            time=author.time,
            version=author.version,
        )
        removed = question.remove or not (row.name or row.note or row.tags)
        if removed and before is None:
            return None
        row = _written(connection, row, removed)
        return None if removed else row


def import_annotations(file: AnnotationFile, rows: Sequence[AnnotationRow]) -> int:
    """Write annotations as they are, all or none, and return how many say another thing than before."""
    count = 0
    with file.writing() as connection:
        for row in rows:
            before = _current(connection, row.subject)
            if before is None or (before.name, before.note, before.tags) != (row.name, row.note, row.tags):
                _written(connection, row, removed=False)
                count += 1
    return count


def _written(connection: sqlite3.Connection, row: AnnotationRow, removed: bool) -> AnnotationRow:
    """Add a row to the file, and return it with its revision."""
    cursor = connection.execute(
        "INSERT INTO annotation (subject, name, note, tags, author, time, version, removed) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (row.subject, row.name, row.note, json.dumps(row.tags), row.author, row.time, row.version, removed),
    )
    return replace(row, revision=cursor.lastrowid or 0)


def check_revision(subject: str, seen: int | None, present: int) -> None:
    """Raise ConflictError where something has changed since the revision that was seen."""
    if seen is not None and seen != present:
        raise ConflictError(f"{subject}: what is written there was changed meanwhile; look at it again, then change it")


def _current(connection: sqlite3.Connection, subject: str) -> AnnotationRow | None:
    query = f"SELECT {_COLUMNS}, removed FROM annotation WHERE subject = ? ORDER BY revision DESC LIMIT 1"
    found = connection.execute(query, (subject,)).fetchone()
    return None if found is None or found[-1] else _row(found[:-1])


def _row(values: tuple[str, str, str, str, str, str, str, int]) -> AnnotationRow:
    subject, name, note, tags, author, time, version, revision = values
    try:
        words = json.loads(tags)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise AtlasError(f"the tags of {subject} in the file of annotations are no list of texts")
    return AnnotationRow(subject, name, note, words, author, time, version, revision)
