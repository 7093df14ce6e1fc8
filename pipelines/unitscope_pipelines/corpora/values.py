"""Values as metadata keeps them: JSON that says exactly what the corpus said, and else text.

What reads as a number or truth value becomes one only where writing it again gives the same: `00123`, `1.10`, `+1`,
`1e5` and whole numbers beyond 64 bits stay text, so that no two values become one.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from unitscope_schemas.addresses import as_text

Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER_LIKE = re.compile(
    r"\s*[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|\s*[+-]?0[xob][\da-f]+\s*", re.IGNORECASE | re.ASCII
)
_DIGIT = re.compile(r"\d")
_LARGEST = 2**63
_TRUTHS = {"true": True, "false": False}


class ColumnKind:
    """What the cells of a column of text have in common, found out cell by cell; empty cells say nothing."""

    def __init__(self) -> None:
        self._are_truths, self._are_numbers = True, True

    def see(self, text: str) -> None:
        """Take a cell into account."""
        if text:
            self._are_truths = self._are_truths and text in _TRUTHS
            if self._are_numbers and number_of(text) is None:
                self._are_numbers = _NUMBER_LIKE.fullmatch(text) is None and _DIGIT.search(text) is None

    def value(self, text: str) -> Json:
        """Return a cell as metadata keeps it, None for an empty one.

        A column is true and false, or numbers beside words such as `unknown`, or text: numbers among which one does not
        survive, and words with digits, make all of it text.
        """
        if not text:
            return None
        if self._are_truths:
            return _TRUTHS[text]
        number = number_of(text) if self._are_numbers else None
        return text if number is None else number


def number_of(text: str) -> int | float | None:
    """Return the number whose shortest writing is this text; None where there is none within 64 bits."""
    if _WHOLE.fullmatch(text):
        number = whole_number(text)
        return number if isinstance(number, int) and str(number) == text else None
    if "." not in text and "e" not in text:
        return None
    try:
        real = float(text)
    except ValueError:
        return None
    return real if math.isfinite(real) and repr(real) == text else None


def whole_number(text: str) -> int | str:
    """Return the whole number that a text writes, and the text itself where it takes more than 64 bits."""
    number = int(text) if len(text) <= len(str(_LARGEST)) + 1 else _LARGEST
    return number if -_LARGEST <= number < _LARGEST else text


def real_number(text: str) -> float | str:
    """Return the number that a text writes, and the text itself where 64 bits cannot hold all its digits."""
    number = float(text)
    return number if math.isfinite(number) and Decimal(repr(number)) == Decimal(text) else text


def read_json(text: str) -> Any:
    """Read a JSON document; numbers that 64 bits cannot hold, NaN and Infinity become text.

    Raises ValueError for what is no JSON, is nested too deeply, or has an object with two values of one name.
    """
    try:
        return json.loads(
            text, parse_int=whole_number, parse_float=real_number, parse_constant=str, object_pairs_hook=_object
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def as_metadata(values: Mapping[str, Json]) -> str | None:
    """Write what a corpus says of a picture as a JSON object; missing values are left out, None where nothing is left.

    Numbers that are not finite become text, for JSON has none.
    """
    known: dict[str, Json] = {name: value for name, value in values.items() if value is not None}
    if not known:
        return None
    try:
        text = json.dumps(known, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except ValueError:
        text = json.dumps(_finite(known), separators=(",", ":"))
    return text


def as_labels(value: object) -> tuple[str, ...]:
    """Return the labels that a value says, each once in its order: one, those of a list, none where it is missing."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(dict.fromkeys(label for item in values if (label := as_label(item)) is not None))


def as_label(value: object) -> str | None:
    """Return a label as text, without blanks around it; None where it is missing or empty."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return as_text(text).strip() or None


def _object(pairs: Iterable[tuple[str, Json]]) -> dict[str, Json]:
    values: dict[str, Json] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"an object has two values of the name {name!r}")
        values[name] = value
    return values


def _finite(value: Json) -> Json:
    """Return a value with text for numbers that are not finite and for half characters."""
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case str():
            return as_text(value)
        case list():
            return [_finite(item) for item in value]
        case dict():
            return {as_text(name): _finite(item) for name, item in value.items()}
        case _:
            return value
