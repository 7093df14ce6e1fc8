"""The base of every question, and how bands and boxes are read from text, numbers and forms."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from unitscope_schemas.errors import UsageError, listing
from unitscope_schemas.geometry import Box

LARGEST_FLOAT = 3.4028234663852886e38
"""Largest number that a float32 holds."""
LARGEST_DOUBLE = 1.7976931348623157e308
"""Largest number that a float64 holds."""
LONGEST_TEXT = 4096
"""Most characters of a name, a path, a label or a condition in a question."""
_MOST_FAULTS = 8
"""Most kinds of faults that a message lists."""
VERSION, SAFE = "v", "safe"
"""Parameters of an address that say how it is answered, not what is asked: the atlas version, so that caches may keep
the answer for good; whether a CSV is for a spreadsheet."""


@dataclass(frozen=True)
class Metavar:
    """The word by which help texts write the value of an option."""

    text: str


class Question(BaseModel):
    """Base of all questions: frozen, and an unknown name or a value out of range raises UsageError with what would be
    right.

    A question of a derived class is made from its fields by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if name not in (VERSION, SAFE)}
            check_names(data, cls.model_fields)
        try:
            return handler(data)
        except ValidationError as error:
            raise UsageError(faults(error.errors())) from None


def check_names(given: Sequence[str] | dict[str, Any], known: Sequence[str] | dict[str, Any]) -> None:
    """Raise UsageError for the first name that is not known, naming the nearest."""
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {listing(sorted(known)) or 'none'}"
            raise UsageError(f"there is no parameter {name!r} here; {hint}")


def faults(errors: Sequence[Any], leave_out: int = 0) -> str:
    """Return what pydantic found wrong, and what would be right: of what is wrong with many elements alike the first.

    The first `leave_out` parts of each location are not shown.
    """
    alike: dict[tuple[Any, ...], list[Any]] = {}
    for error in errors:
        names = tuple(part for part in error["loc"] if not isinstance(part, int))
        alike.setdefault((names, error["type"]), []).append(error)
    texts = [
        fault(first["loc"][leave_out:], first) + (f" (and {len(more)} more like it)" if more else "")
        for first, *more in alike.values()
    ]
    return "; ".join(texts[:_MOST_FAULTS]) + (f"; and {len(texts) - _MOST_FAULTS} more" if texts[_MOST_FAULTS:] else "")


def fault(location: Sequence[int | str], error: Any) -> str:
    """Return what pydantic found wrong with the field at a location, and what would be right, in one line."""
    field = ".".join(map(str, location)) or "the request's body"
    message = error["msg"][:1].lower() + error["msg"][1:]
    given = error.get("input")
    if error["type"] in ("literal_error", "union_tag_invalid"):
        word = str(error.get("ctx", {}).get("tag", given))
        choices = [choice for choice in re.findall("'([^']*)'", message) if choice != word]
        message += f" (did you mean {near[0]!r}?)" if (near := get_close_matches(word, choices, 1)) else ""
    shown = f", not {given!r}" if isinstance(given, str | int | float) and len(str(given)) <= 80 else ""
    return f"{field}: {message.removeprefix('value error, ').replace('input ', '', 1)}{shown}"


def quantile_band(text: str) -> tuple[float, float]:
    """Read a percentile band `a..b` with 0 <= a <= b <= 1; raises UsageError."""
    low, dots, high = text.partition("..")
    try:
        if not dots:
            raise ValueError
        return float(low), float(high)
    except ValueError:
        raise UsageError(f"quantile {text!r} is not a band a..b, for example 0.4..0.6") from None


def _read_band(value: Any) -> Any:
    """Return a band that comes as text, as two numbers, or as a form sends either."""
    if isinstance(value, list | tuple):
        if not any(part not in ("", None) for part in value):
            return None
        value = value[0] if len(value) == 1 else _numbers(value)
    if isinstance(value, str):
        value = quantile_band(value) if value else None
    if value is None or (isinstance(value, tuple) and len(value) == 2 and _ascend(*value)):
        return value
    written = "..".join(map(str, value)) if isinstance(value, tuple) else str(value)
    raise UsageError(f"quantile {written!r} is not a band a..b with 0 <= a <= b <= 1")


def _ascend(low: Any, high: Any) -> bool:
    """Tell whether these are two shares, the lower one first."""
    return isinstance(low, int | float) and isinstance(high, int | float) and 0 <= low <= high <= 1


def _numbers(values: Any) -> Any:
    try:
        return tuple(map(float, values))
    except (TypeError, ValueError, OverflowError):  # left for the model to refuse
        return values


def read_numbers(value: Any) -> Any:
    """A vector of any kind as a tuple of plain numbers; what is none is left for the model to refuse."""
    if value is None or isinstance(value, str | bytes):
        return value
    return _numbers(value)


def read_box(value: Any) -> Any:
    """Return a box that comes as text, as four numbers, or as a form sends either."""
    if isinstance(value, list | tuple) and not isinstance(value, Box):
        if not any(part not in ("", None) for part in value):
            return None
        value = ",".join(map(str, value))
    if isinstance(value, str):
        return Box.parse(value) if value else None
    if value is None or isinstance(value, Box):
        return value
    raise UsageError(f"box {value!r} is not four whole numbers: top,left,bottom,right")


def is_file(path: Path) -> bool:
    """Tell whether a text that may name many things is the path of a file; what no path can be is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


Band = Annotated[
    tuple[float, float] | str | None,
    BeforeValidator(_read_band),
    WithJsonSchema({"type": "string"}),
    Metavar("A..B"),
]
BoxField = Annotated[
    tuple[int, int, int, int] | str | None,
    BeforeValidator(read_box),
    WithJsonSchema({"type": "string"}),
    Metavar("T,L,B,R"),
]


class BandedQuestion(Question):
    """A question that may be about a percentile band of a unit's images."""

    quantile: Band = None

    @property
    def band(self) -> tuple[float, float] | None:
        """The percentile band, both ends inclusive, or None where none is given."""
        return None if self.quantile is None or isinstance(self.quantile, str) else self.quantile
