"""A question made of values that no one means is made or refused with what would be right, and never fails."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import unitscope_schemas
from unitscope_schemas.errors import UsageError
from unitscope_schemas.question import Question

for _module in pkgutil.walk_packages(unitscope_schemas.__path__, "unitscope_schemas."):
    importlib.import_module(_module.name)

_HUGE, _DIGITS = 10**400, "9" * 5_000
"""A whole number beyond every float, and one that Python does not read."""
HOSTILE: dict[str, Any] = {
    "huge": _HUGE,
    "huge below zero": -_HUGE,
    "two huge": [_HUGE] * 2,
    "four huge": [_HUGE] * 4,
    "huge in lists": [[_HUGE]],
    "huge in a dict": {"a": _HUGE},
    "digits": _DIGITS,
    "digits below zero": f"-{_DIGITS}",
    "four digits": ",".join([_DIGITS] * 4),
    "a band of digits": f"0..{_DIGITS}",
    "a list of digits": [_DIGITS],
    "a unit of digits": f"layer:{_DIGITS}",
    "a digit that is no ASCII": "layer:²",
    "beyond a float": "1e999",
    "not a number": float("nan"),
    "infinite": float("inf"),
    "no text": "\ud800",
    "a list of no text": ["\ud800"],
    "bytes": b"\xff",
    "an object": object(),
}


def _derived(base: type[Question]) -> Iterator[type[Question]]:
    for one in base.__subclasses__():
        yield one
        yield from _derived(one)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_value_of_any_parameter_is_taken_or_refused(value: Any) -> None:
    refused = 0
    for question in set(_derived(Question)):
        for name in question.model_fields:
            try:
                question(**{name: value})
            except UsageError:
                refused += 1
    assert refused > 20
