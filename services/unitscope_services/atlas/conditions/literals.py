"""Texts as numbers and as moments, exactly: numbers of any size as decimals, dates as spans of nanoseconds."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?", re.ASCII)
_INFINITE = re.compile(r"([+-]?)inf(inity)?", re.IGNORECASE)
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?)?)?", re.ASCII
)
_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).toordinal()

Span = tuple[int, int]
"""Nanoseconds since 1970 in UTC from which on, and before which, a moment lies."""


@lru_cache(maxsize=65_536)
def read_number(text: str) -> Decimal | None:
    """Return the number that a text writes, infinite ones too; None where it writes none."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    match = _INFINITE.fullmatch(text)
    return None if match is None else Decimal(f"{match[1]}Infinity")


@lru_cache(maxsize=65_536)
def read_span(text: str) -> Span | None:
    """Return the time that a text in ISO 8601 means: a year, a month, a day, or a moment; None where it is none.

    A time without a zone counts as UTC.
    """
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        start = _days(int(year), int(month or 1), int(day or 1)) * _DAY
        if month is None:
            return start, _days(int(year) + 1, 1, 1) * _DAY
        if day is None:
            return start, _days(int(year) + int(month) // 12, int(month) % 12 + 1, 1) * _DAY
    except ValueError:
        return None
    if hour is None:
        return start, start + _DAY
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 60:
        return None
    start += (int(hour) * 60 + int(minute)) * 60 * _SECOND - _zone(zone)
    if second is None:
        return start, start + 60 * _SECOND
    start += int(second) * _SECOND + int((fraction or "").ljust(9, "0"))
    return start, start + (10 ** (9 - len(fraction)) if fraction else _SECOND)


def has_day(text: str) -> bool:
    """Tell whether a time is said at least to the day."""
    return len(text.strip()) >= len("2020-01-02")


def _days(year: int, month: int, day: int) -> int:
    if year > 9999:
        return datetime(9999, 12, 31, tzinfo=UTC).toordinal() + 1 - _EPOCH
    return datetime(year, month, day, tzinfo=UTC).toordinal() - _EPOCH


def _zone(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    sign = -1 if zone[0] == "-" else 1
    return sign * (int(zone[1:3]) * 60 + int(zone[-2:])) * 60 * _SECOND
