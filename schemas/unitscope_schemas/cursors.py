"""Cursors say where a listing goes on; each is bound to the question that it belongs to."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import TypeVar

from unitscope_schemas.errors import UsageError

Item = TypeVar("Item")


def encode(position: int, question: str) -> str:
    """Return an opaque cursor for the rows behind `position` of a question."""
    content = json.dumps([position, _digest(question)], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def decode(cursor: str | None, question: str, positions: range) -> int | None:
    """Return the position of a cursor, None at the start.

    Raises UsageError for a cursor of another question, and for one whose position is none of those there are.
    """
    if cursor is None:
        return None
    try:
        position, digest = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise UsageError("cursor is not one that this server gave") from None
    if digest != _digest(question):
        raise UsageError("cursor belongs to another question: start again without it")
    if type(position) is not int or position not in positions:
        raise UsageError("cursor leads beyond the answer, to where this server sends nobody: start again without it")
    return position


def _digest(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:12]


def page(items: Sequence[Item], subject: str, size: int | None, cursor: str | None) -> tuple[list[Item], str | None]:
    """Return a page of items and the cursor to the next one, if there are more.

    Without a size the page holds all items from the cursor on. Raises UsageError for a cursor of another subject.
    """
    start = decode(cursor, subject, range(len(items) + 1)) or 0
    end = len(items) if size is None else start + size
    return list(items[start:end]), encode(end, subject) if end < len(items) else None
