"""Collections of units and images: listed, changed and imported."""

from collections.abc import Sequence
from dataclasses import replace

from unitscope_schemas.answers.annotations import Collection, CollectionItem, CollectionPage, CollectQuestion
from unitscope_schemas.errors import NotFoundError
from unitscope_services.annotations import collections
from unitscope_services.annotations.annotations import Author
from unitscope_services.queries.annotations.subjects import subject_named, subjects_named
from unitscope_services.queries.session import Session


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


def move_up(session: Session, name: str, subject: str, revision: int, author: str) -> Collection | None:
    """Put an item of a collection before the one that stands before it; the first one stays where it is."""
    order = [item.subject for item in collection(session, name).rows]
    if subject not in order:
        raise NotFoundError(f"the collection {name!r} does not hold {subject}")
    place = order.index(subject)
    order.insert(max(0, place - 1), order.pop(place))
    question = CollectQuestion(subjects=tuple(order), arrange=True, revision=revision)
    return collect(session, name, question, author)


def import_items(session: Session, name: str, items: Sequence[CollectionItem], author: str) -> Collection:
    """Add units and images of a file to a collection, all or none; raises NotFoundError as `import_annotations`."""
    writer = Author(author, session.atlas.version)
    subjects = subjects_named(session.atlas, [item.subject for item in items])
    whole = [
        replace(item, subject=subject, author=item.author or writer.name, time=item.time or writer.time)
        for item, subject in zip(items, subjects, strict=True)
    ]
    return collections.import_items(session.annotations, name, whole, writer)


def _subjects_of(session: Session, name: str, subjects: Sequence[str]) -> list[str]:
    """Return whole names of subjects; those that the collection holds already are known by them."""
    try:
        known = {item.subject for item in collection(session, name).rows}
    except NotFoundError:
        known = set()
    return [text if text in known else subject_named(session.atlas, text) for text in subjects]
