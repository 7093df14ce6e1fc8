"""Annotations and items of collections in files, as the commands and the API write them: JSON and CSV."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from unitscope_schemas.answers.annotations import MOST_ITEMS, AnnotationRow, CollectionItem, Name, Note
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.question import faults
from unitscope_schemas.questions import Text


def _tags(value: Any) -> Any:
    """Return the tags of a CSV: a JSON list, as it is written there, or words between commas."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError(f"tags {value!r} are no list") from None
    return [tag for tag in map(str.strip, value.split(",")) if tag]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore")

    subject: Text
    note: Note = ""
    author: Name = ""
    time: Name = ""


class _Annotation(_Entry):
    name: Name = ""
    tags: Annotated[list[Name], BeforeValidator(_tags)] = []
    version: Name = ""


Entry = TypeVar("Entry", bound=_Entry)


def read_annotations(path: Path) -> list[AnnotationRow]:
    """Return the annotations of a file; raises NotFoundError without it, UsageError that names the row at fault."""
    return [
        AnnotationRow(one.subject, one.name, one.note, sorted(set(one.tags)), one.author, one.time, one.version, 0)
        for one in _entries(path, _Annotation)
    ]


def read_items(path: Path) -> list[CollectionItem]:
    """Return the items of a collection in a file; raises as `read_annotations` does."""
    return [CollectionItem(one.subject, one.note, one.author, one.time) for one in _entries(path, _Entry)]


def _entries(path: Path, kind: type[Entry]) -> list[Entry]:
    rows = _rows(path)
    if len(rows) > MOST_ITEMS:
        raise UsageError(f"{path} has {len(rows):,} rows; at most {MOST_ITEMS:,} are written at once")
    entries = []
    for number, row in enumerate(rows, 1):
        try:
            entries.append(kind.model_validate(row))
        except ValidationError as error:
            raise UsageError(f"row {number} of {path}: {faults(error.errors())}") from None
    return entries


def _rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if path.suffix != ".json":
        raise UsageError(f"{path} is neither .json nor .csv")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from None
    rows = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} holds no list of rows")
    return rows
