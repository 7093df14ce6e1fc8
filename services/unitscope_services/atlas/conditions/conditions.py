"""A condition names a column, a relation and a value: `year>=2010`, `kind in cat,dog`, `taken is not null`."""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from unitscope_schemas.errors import UsageError, listing

Relation = Literal["=", "!=", "<", "<=", ">", ">=", "^=", "in", "not in", "is null", "is not null"]

_MOST_CHARACTERS = 2_000
_SIGN = re.compile(r"\s*(==|!=|<>|>=|<=|\^=|=|<|>)(.*)", re.DOTALL)
_MEMBERS = re.compile(r"\s+(not\s+in|in)(?=[\s(])(.*)", re.DOTALL | re.IGNORECASE)
_NULL = re.compile(r"\s+(is\s+not\s+null|is\s+null)\s*", re.IGNORECASE)
_SPELLINGS = {"==": "=", "<>": "!="}
_COLUMN = re.compile(
    r"(.+?)\s*(==|!=|<>|>=|<=|\^=|=|<|>|\s(?:not\s+in|in)[\s(]|\sis\s+(?:not\s+)?null\s*$).*", re.DOTALL
)
_HELP = "write column=value, != < <= > >= ^= (begins with), or column in a,b / not in / is null / is not null"


@dataclass(frozen=True)
class Condition:
    """A column compared with a value, or with several: those of a list that the relation `in` has."""

    column: str
    relation: Relation
    values: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        """The only value."""
        return self.values[0]

    @classmethod
    def parse(cls, text: str, columns: Iterable[str]) -> "Condition":
        """Read a condition on one of some columns; raises UsageError, naming the columns for one that is not there."""
        columns = list(columns)
        _check(text)
        for column in sorted(columns, key=len, reverse=True):
            for name in dict.fromkeys((column, column.strip())):
                if name and text.lstrip().startswith(name):
                    found = cls._of(column, text.lstrip()[len(name) :])
                    if found is not None:
                        return found
        match = _COLUMN.fullmatch(text)
        if match is None or not match[1].strip():
            raise UsageError(f"where {text[:200]!r} is no condition; {_HELP}")
        known = f"there are {listing(columns, most=40)}" if columns else "it has none"
        raise UsageError(f"this atlas has no metadata column {match[1].strip()[:200]!r}; {known}")

    @classmethod
    def _of(cls, column: str, rest: str) -> "Condition | None":
        """Return the condition that stands behind a column's name, None where there is none."""
        if match := _NULL.fullmatch(rest):
            return cls(column, cast(Relation, " ".join(match[1].lower().split())))
        if match := _MEMBERS.fullmatch(rest):
            return cls(column, cast(Relation, " ".join(match[1].lower().split())), _members(match[2]))
        if match := _SIGN.fullmatch(rest):
            return cls(column, cast(Relation, _SPELLINGS.get(match[1], match[1])), (match[2].strip(),))
        return None


def _members(text: str) -> tuple[str, ...]:
    """Return the values of a list, which commas part; quotes hold one with a comma, brackets may stand around all."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    (row,) = list(csv.reader([text.replace("\n", " ").replace("\r", " ")], skipinitialspace=True)) or [[]]
    members = tuple(member.strip() for member in row)
    if not any(members):
        raise UsageError(f"a condition with in needs values, parted by commas; {_HELP}")
    return members


def _check(text: str) -> None:
    """Raise UsageError for a condition that is too long, or no text."""
    if len(text) > _MOST_CHARACTERS:
        raise UsageError(f"a condition has at most {_MOST_CHARACTERS} characters, not {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"where {text!r} is no UTF-8 text") from None
