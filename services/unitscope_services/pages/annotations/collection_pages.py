"""The page of all that people wrote about an atlas, and the page of a collection."""

from collections.abc import Sequence
from dataclasses import dataclass

from unitscope_schemas.answers.annotations import (
    AnnotationRow,
    AnnotationsQuestion,
    Collection,
    CollectionItem,
    CollectionRow,
)
from unitscope_schemas.answers.served import AtlasRow
from unitscope_schemas.errors import NotFoundError
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.pages.annotations.written import subject_page, subject_words
from unitscope_services.pages.pages import unit_strip
from unitscope_services.pages.views import PatchStrip
from unitscope_services.queries.annotations.annotations import annotation_page
from unitscope_services.queries.annotations.collections import collection, collection_page
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session
from unitscope_services.server.links import Links, links_of

_SHOWN, _PATCHES = 50, 6
"""Count of annotations and items that a page shows with pictures, and of patches of each unit."""
_PICTURE_PX = 128


@dataclass(frozen=True)
class SubjectView:
    """A unit with its first patches, or an image with its picture; what has left the atlas has neither."""

    subject: str
    words: str
    href: str
    strip: PatchStrip | None
    picture: str | None


@dataclass(frozen=True)
class AnnotationsView:
    """All that people wrote about the units and images of an atlas, the last first."""

    atlas: AtlasRow
    links: Links
    rows: list[tuple[SubjectView, AnnotationRow]]
    count: int
    tags: list[str]
    tag: str | None
    collections: list[CollectionRow]
    rows_api: str
    rows_query: str


@dataclass(frozen=True)
class CollectionView:
    """A collection with pictures of its first items."""

    atlas: AtlasRow
    links: Links
    collection: Collection
    items: list[tuple[SubjectView, CollectionItem]]
    more: list[tuple[SubjectView, CollectionItem]]
    """Items behind those, without pictures."""
    writes: bool
    rows_api: str


def annotations_view(session: Session, tag: str | None) -> AnnotationsView:
    """Return what people wrote about an atlas, of one tag or all."""
    links = links_of(session.atlas)
    every = annotation_page(session, AnnotationsQuestion())
    page = annotation_page(session, AnnotationsQuestion(tag=tag)) if tag else every
    return AnnotationsView(
        atlas=session.atlas.summary(),
        links=links,
        rows=[(_subject_view(session, row.subject), row) for row in page.rows[:_SHOWN]],
        count=page.count,
        tags=sorted({word for row in every.rows for word in row.tags}),
        tag=tag,
        collections=collection_page(session).rows,
        rows_api=links.api("annotations"),
        rows_query=links.at("", tag=tag),
    )


def collection_view(session: Session, name: str, may_write: bool) -> CollectionView:
    """Return a collection; raises NotFoundError."""
    links, found = links_of(session.atlas), collection(session, name)
    return CollectionView(
        atlas=session.atlas.summary(),
        links=links,
        collection=found,
        items=_item_views(session, found.rows[:_SHOWN], with_pictures=True),
        more=_item_views(session, found.rows[_SHOWN:], with_pictures=False),
        writes=may_write and session.annotations.is_writable,
        rows_api=links.api("collections", name),
    )


def _item_views(
    session: Session, items: Sequence[CollectionItem], with_pictures: bool
) -> list[tuple[SubjectView, CollectionItem]]:
    return [(_subject_view(session, item.subject, with_pictures), item) for item in items]


def _subject_view(session: Session, subject: str, with_pictures: bool = True) -> SubjectView:
    links = links_of(session.atlas)
    words, href = subject_words(session, subject), subject_page(links, subject)
    strip = picture = None
    if with_pictures and ":" in subject:
        unit = UnitId.parse(subject)
        try:
            strip = unit_strip(session.atlas, unit, patches(session.atlas, unit, TopQuestion(k=_PATCHES)).rows)
        except NotFoundError:  # its layer is no longer recorded
            strip = None
    elif with_pictures and session.atlas.image_by_id(subject) is not None:
        picture = links.whole(subject, _PICTURE_PX)
    return SubjectView(subject, words, href, strip, picture)
