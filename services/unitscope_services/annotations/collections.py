"""The collections in a file: units and images that people put together, in an order, each with a note."""

import sqlite3
from collections.abc import Sequence

from unitscope_schemas.answers.annotations import (
    MOST_ITEMS,
    Collection,
    CollectionItem,
    CollectionRow,
    CollectQuestion,
)
from unitscope_schemas.errors import NotFoundError, UsageError, listing
from unitscope_services.annotations.annotation_file import AnnotationFile
from unitscope_services.annotations.annotations import Author, check_revision

_COLUMNS = "name, about, author, time, revision"


def collections_of(file: AnnotationFile, subject: str | None = None) -> list[CollectionRow]:
    """Return the collections by name: all, or those that a subject is in."""
    query = """SELECT name, about, (SELECT count(*) FROM item WHERE collection = name), author, time, revision
FROM collection WHERE ?1 IS NULL OR name IN (SELECT collection FROM item WHERE subject = ?1) ORDER BY name"""
    with file.reading() as connection:
        return [] if connection is None else [CollectionRow(*row) for row in connection.execute(query, (subject,))]


def collection_named(file: AnnotationFile, name: str) -> Collection:
    """Return a collection with its items; raises NotFoundError that names those there are."""
    with file.reading() as connection:
        found = None if connection is None else _collection(connection, name)
        if found is not None:
            return found
        known = [] if connection is None else [row[0] for row in connection.execute("SELECT name FROM collection")]
    raise NotFoundError(f"there is no collection {name!r}; there are {listing(sorted(known)) or 'none yet'}")


def collect(file: AnnotationFile, name: str, question: CollectQuestion, author: Author) -> Collection | None:
    """Change a collection and return it, None where it was deleted.

    Subjects that it has already keep their places, and their notes unless another is given. Raises NotFoundError for
    what would be taken out and is not there, ConflictError as `annotate` does.
    """
    if question.remove and question.arrange:
        raise UsageError("remove takes items out and arrange says which there are: give one of them")
    with file.writing() as connection:
        before = _collection(connection, name)
        check_revision(name, question.revision, before.revision if before else 0)
        if question.remove:
            items = _without(name, before, question.subjects)
        else:
            items = _with([] if before is None else before.rows, question, author)
        if question.remove and not question.subjects:
            connection.execute("DELETE FROM item WHERE collection = ?", (name,))
            connection.execute("DELETE FROM collection WHERE name = ?", (name,))
            return None
        after = _after(name, before, items, question.about, author)
        _write(connection, after)
        return after


def import_items(file: AnnotationFile, name: str, items: Sequence[CollectionItem], author: Author) -> Collection:
    """Add items as they are to a collection, behind those that it has, of which equal subjects get the new notes."""
    with file.writing() as connection:
        before = _collection(connection, name)
        known = {item.subject: item for item in before.rows} if before else {}
        after = _after(name, before, list((known | {item.subject: item for item in items}).values()), None, author)
        _write(connection, after)
    return after


def _after(
    name: str, before: Collection | None, items: Sequence[CollectionItem], about: str | None, author: Author
) -> Collection:
    if len(items) > MOST_ITEMS:
        raise UsageError(f"a collection holds at most {MOST_ITEMS:,} units and images, not {len(items):,}")
    return Collection(
        name=name,
        about=about.strip() if about is not None else before.about if before else "",
        author=author.name,
        time=author.time,
        revision=before.revision + 1 if before else 1,
        rows=list(items),
    )


def _write(connection: sqlite3.Connection, collection: Collection) -> None:
    """Put a collection in the place of the one of its name, if there is one."""
    name = collection.name
    head = (name, collection.about, collection.author, collection.time, collection.revision)
    connection.execute("DELETE FROM item WHERE collection = ?", (name,))
    connection.execute(f"INSERT OR REPLACE INTO collection ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", head)
    rows = [
        (name, place, item.subject, item.note, item.author, item.time) for place, item in enumerate(collection.rows)
    ]
    connection.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?)", rows)


def _with(items: Sequence[CollectionItem], question: CollectQuestion, author: Author) -> list[CollectionItem]:
    """Return the items with the subjects of a question added, or these alone in their order."""
    known = {item.subject: item for item in items}
    for subject in question.subjects:
        before = known.get(subject)
        if before is None or (question.note is not None and question.note.strip() != before.note):
            known[subject] = CollectionItem(subject, (question.note or "").strip(), author.name, author.time)
    return (
        [known[subject] for subject in dict.fromkeys(question.subjects)] if question.arrange else list(known.values())
    )


def _without(name: str, before: Collection | None, subjects: Sequence[str]) -> list[CollectionItem]:
    if before is None:
        raise NotFoundError(f"there is no collection {name!r}")
    missing = set(subjects) - {item.subject for item in before.rows}
    if missing:
        raise NotFoundError(f"the collection {name!r} does not hold {listing(sorted(missing))}")
    return [item for item in before.rows if item.subject not in subjects]


def _collection(connection: sqlite3.Connection, name: str) -> Collection | None:
    found = connection.execute(f"SELECT {_COLUMNS} FROM collection WHERE name = ?", (name,)).fetchone()
    if found is None:
        return None
    query = "SELECT subject, note, author, time FROM item WHERE collection = ? ORDER BY position"
    items = [CollectionItem(*row) for row in connection.execute(query, (name,))]
    return Collection(**dict(zip(("name", "about", "author", "time", "revision"), found, strict=True)), rows=items)
