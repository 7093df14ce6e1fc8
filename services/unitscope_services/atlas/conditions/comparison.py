"""Where a condition holds in a column: of numbers, truth values, text, or JSON documents of any kind.

Numbers are compared exactly, whatever their size. Texts that write numbers or dates are ordered as such. A missing
value passes `is null` alone, `!=` and `not in` included. A list passes where one of its members does.
"""

import json
from collections.abc import Callable
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_schemas.errors import UsageError
from unitscope_services.atlas.conditions.conditions import Condition
from unitscope_services.atlas.conditions.literals import has_day, read_number, read_span

Mask = NDArray[np.bool_]
_TRUTHS = {"true": True, "false": False}
_OPPOSITE = {"!=": "=", "not in": "in"}
_LEAST, _MOST = -(2**63), 2**63 - 1


def holds(condition: Condition, values: pa.Array) -> Mask:
    """Return for which values of a column a condition holds; raises UsageError for a value of another kind."""
    if condition.relation in ("is null", "is not null"):
        valid = _mask(values.is_valid())
        return valid if condition.relation == "is not null" else ~valid
    opposite = _OPPOSITE.get(condition.relation)
    compare = _comparison(values.type)
    if opposite is None:
        return compare(condition, condition.relation, values)
    return _mask(values.is_valid()) & ~compare(condition, opposite, values)


def text_holds(condition: Condition, text: str) -> bool:
    """Return whether a condition with `=`, `in` or `^=` holds for a text."""
    return _text_passes(condition, condition.relation, text)


def _comparison(kind: pa.DataType) -> Callable[[Condition, str, pa.Array], Mask]:
    if pa.types.is_boolean(kind):
        return _truths
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbers
    return _documents if pa.types.is_large_binary(kind) else _texts


def _truths(condition: Condition, relation: str, values: pa.Array) -> Mask:
    column = condition.column
    if relation not in ("=", "in"):
        raise UsageError(f"metadata column {column!r} is true or false; only =, != and in compare it, not {relation}")
    for value in condition.values:
        if value not in _TRUTHS:
            raise UsageError(f"metadata column {column!r} is true or false, not {value!r}")
    return _mask(pc.is_in(values, pa.array([_TRUTHS[value] for value in condition.values])))


def _numbers(condition: Condition, relation: str, values: pa.Array) -> Mask:
    if relation == "^=":
        raise UsageError(f"metadata column {condition.column!r} holds numbers; ^= compares the beginnings of texts")
    compare = _whole if pa.types.is_integer(values.type) else _real
    mask = np.zeros(len(values), bool)
    for value in condition.values:
        number = read_number(value)
        if number is None:
            raise UsageError(f"metadata column {condition.column!r} holds numbers; {value!r} is none")
        mask |= compare(values, "=" if relation == "in" else relation, number)
    return mask


def _whole(values: pa.Array, relation: str, number: Decimal) -> Mask:
    """Compare whole numbers with one of any size, exactly: by the greatest whole number that is not above it."""
    beyond = number.is_infinite() or number.adjusted() > len(str(_MOST))
    floor = (_MOST + 1 if number > 0 else _LEAST - 1) if beyond else int(number.to_integral_value(ROUND_FLOOR))
    exact = not beyond and floor == number
    if relation == "=":
        return _mask(pc.equal(values, floor)) if exact and _LEAST <= floor <= _MOST else np.zeros(len(values), bool)
    bound = floor - 1 if exact and relation in ("<", ">=") else floor
    valid = _mask(values.is_valid())
    if bound >= _MOST:
        below = valid
    elif bound < _LEAST:
        below = np.zeros(len(values), bool)
    else:
        below = _mask(pc.less_equal(values, bound))
    return below if relation in ("<", "<=") else valid & ~below


def _real(values: pa.Array, relation: str, number: Decimal) -> Mask:
    functions = {"=": pc.equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}
    return _mask(functions[relation](values, pa.scalar(float(number), pa.float64())))


def _texts(condition: Condition, relation: str, values: pa.Array) -> Mask:
    dated = any(read_span(value) is not None and has_day(value) for value in condition.values)
    if relation in ("=", "in") and not dated:
        return _mask(pc.is_in(values, pa.array(condition.values, values.type)))
    if relation == "^=":
        return _mask(pc.starts_with(values, condition.value))
    return _each(condition, relation, values, lambda text: text)


def _documents(condition: Condition, relation: str, values: pa.Array) -> Mask:
    return _each(condition, relation, values, json.loads)


def _each(condition: Condition, relation: str, values: pa.Array, read: Callable[[Any], Any]) -> Mask:
    """Compare every different value once; raises UsageError where no value can be ordered against the given one."""
    encoded = values.dictionary_encode()
    different = [read(value) for value in encoded.dictionary.to_pylist()]
    results = [_passes(condition, relation, value) for value in different]
    if results and all(result is None for result in results):
        raise UsageError(
            f"metadata column {condition.column!r} holds no number and no date to compare with {condition.value!r} by "
            f"{relation}; texts are compared by =, !=, ^= and in"
        )
    passing = pa.array([bool(result) for result in results], pa.bool_())
    return _mask(passing.take(encoded.indices))


def _passes(condition: Condition, relation: str, value: Any) -> bool | None:
    """Return whether a value passes, None where it cannot be ordered against the condition's."""
    if isinstance(value, list):
        results = [_passes(condition, relation, member) for member in value]
        return None if results and all(result is None for result in results) else any(results)
    if isinstance(value, str):
        return _text_passes(condition, relation, value) if relation in ("=", "in", "^=") else _order(condition, value)
    if isinstance(value, bool) or value is None or isinstance(value, dict):
        written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return written in condition.values if relation in ("=", "in") else None
    if relation in ("=", "in"):
        return any(_equal(value, read_number(text)) for text in condition.values)
    return str(value).startswith(condition.value) if relation == "^=" else _order(condition, str(value))


def _text_passes(condition: Condition, relation: str, text: str) -> bool:
    if relation == "^=":
        return text.startswith(condition.value)
    return any(text == value or _same_day(text, value) for value in condition.values)


def _equal(value: float, number: Decimal | None) -> bool:
    if number is None:
        return False
    return Decimal(value) == number if isinstance(value, int) else value == float(number)


def _same_day(text: str, value: str) -> bool:
    """Tell whether a text is a time within the day or moment that a value says."""
    if not has_day(value) or not has_day(text):
        return False
    span, moment = read_span(value), read_span(text)
    return span is not None and moment is not None and span[0] <= moment[0] and moment[1] <= span[1]


def _order(condition: Condition, text: str) -> bool | None:
    """Return whether a text that writes a number or time lies on the side of the condition's; None if it does not."""
    relation, value = condition.relation, condition.value
    number, other = read_number(text), read_number(value)
    if number is not None and other is not None:
        sides = {"<": number < other, "<=": number <= other, ">": number > other, ">=": number >= other}
        return sides[relation]
    moment, span = read_span(text), read_span(value)
    if moment is None or span is None:
        return None
    start = moment[0]
    return {"<": start < span[0], "<=": start < span[1], ">": start >= span[1], ">=": start >= span[0]}[relation]


def _mask(values: pa.Array | pa.ChunkedArray) -> Mask:
    mask: Mask = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask
