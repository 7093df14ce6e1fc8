"""What people add to an atlas: annotations of units and images, and collections of them, as questions and answers."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from unitscope_schemas.answers.served import Answer
from unitscope_schemas.question import Question
from unitscope_schemas.questions import PageSize, Text

MOST_ITEMS = 10_000
"""Most units and images of a collection."""


def _one_line(value: object) -> object:
    return " ".join(value.split()) if isinstance(value, str) else value


Name = Annotated[str, BeforeValidator(_one_line), StringConstraints(max_length=200)]
Note = Annotated[str, StringConstraints(max_length=10_000)]
CollectionName = Annotated[
    str,
    BeforeValidator(_one_line),
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^./\x00-\x1f\x7f]+$"),
    Field(description="name of a collection: any text of one line without dots and slashes"),
]
Revision = Annotated[
    int | None,
    Field(ge=0, le=2**63 - 1, description="number of the state that was seen: refused if it has changed since"),
]
Subjects = Annotated[
    tuple[Text, ...],
    Field(max_length=MOST_ITEMS, description="units as `LAYER:UNIT`, and images by id or path; repeatable"),
]


class AnnotateQuestion(Question):
    """What is written about a unit or an image; what is not given stays as it is."""

    name: Annotated[Name | None, Field(description="a short name; empty takes it away")] = None
    note: Annotated[Note | None, Field(description="what was found out; empty takes it away")] = None
    tags: Annotated[
        tuple[Name, ...] | None, Field(max_length=50, description="words to find it by; repeatable, one empty: none")
    ] = None
    remove: Annotated[bool, Field(description="take the whole annotation away")] = False
    revision: Revision = None


class AnnotationsQuestion(Question):
    """The annotations of an atlas, all of them or those that pass."""

    subject: Annotated[Text | None, Field(description="only of this unit, as `LAYER:UNIT`, or image")] = None
    contains: Annotated[Text | None, Field(description="only those whose name, note or tags hold this text")] = None
    tag: Annotated[Name | None, Field(description="only those with this tag")] = None
    k: PageSize = None


@dataclass
class AnnotationRow:
    """What people have written about a unit or an image."""

    subject: str
    """Unit as `LAYER:UNIT`, or the id of an image."""
    name: str
    note: str
    tags: list[str]
    author: str
    """Name of the key that wrote it, or of the person at the command line; empty where nobody is known."""
    time: str
    version: str
    """Version of the atlas that the author had before them."""
    revision: int


class AnnotationPage(Answer):
    """Annotations, those that were written last first."""

    rows: list[AnnotationRow]
    count: int
    """Count of all that pass, of which `rows` may be the first."""


class CollectQuestion(Question):
    """A change of a collection, which is made by the first one."""

    subjects: Subjects = ()
    note: Annotated[Note | None, Field(description="a note on each of these units and images")] = None
    about: Annotated[Note | None, Field(description="what the whole collection is; empty takes it away")] = None
    remove: Annotated[bool, Field(description="take these out; without any, delete the collection")] = False
    arrange: Annotated[bool, Field(description="let these alone be the items, in this order")] = False
    revision: Revision = None


@dataclass
class CollectionItem:
    """A unit or an image of a collection."""

    subject: str
    note: str
    author: str
    time: str


@dataclass
class CollectionRow:
    """A collection, without its items."""

    name: str
    about: str
    item_count: int
    author: str
    """Name of who changed it last."""
    time: str
    revision: int


class CollectionPage(Answer):
    """The collections of an atlas, by name."""

    rows: list[CollectionRow]


class Collection(Answer):
    """A collection with its units and images, in their order."""

    name: str
    about: str
    author: str
    time: str
    revision: int
    rows: list[CollectionItem]
