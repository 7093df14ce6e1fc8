"""Columns of Parquet files as JSON values, whatever their Arrow type; nothing is rounded and nothing depends on pandas.

Dates and times are text in ISO 8601, durations too (`PT1.5S`); decimals are numbers where 64 bits hold them, else text.
"""

import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.corpora.values import Json, number_of, real_number, whole_number
from unitscope_schemas.addresses import as_text

_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_FRACTION_DIGITS = 6
"""Least count of digits behind the point of a second, if there are any, as Python's isoformat writes them."""


def json_values(column: pa.Array) -> list[Json]:
    """Return the values of a column as JSON writes them; None where they are null, or of a type with `holds_bytes`."""
    kind = column.type
    for is_kind, values in _READERS:
        if is_kind(kind):
            return values(column)
    return [None] * len(column)


def can_be_read(kind: pa.DataType) -> bool:
    """Tell whether values of a type can be metadata: bytes cannot, nor what has bytes within."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.extension_name == "arrow.uuid" or can_be_read(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return can_be_read(kind.value_type)
    if pa.types.is_nested(kind):
        return all(can_be_read(kind.field(number).type) for number in range(kind.num_fields))
    return any(is_kind(kind) for is_kind, _ in _READERS)


def _whole(column: pa.Array) -> list[Json]:
    return [None if value is None else whole_number(str(value)) for value in column.to_pylist()]


def _real(column: pa.Array) -> list[Json]:
    """Return real numbers; those of fewer than 64 bits as the shortest that is rounded to them, as people write it."""
    values = column.to_pylist()
    if column.type.bit_width < 64:
        short = np.float16 if column.type.bit_width == 16 else np.float32
        values = [None if value is None else float(str(short(value))) for value in values]
    return [value if value is None or math.isfinite(value) else _infinite(value) for value in values]


def _infinite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(column: pa.Array) -> list[Json]:
    return [None if value is None else as_text(value) for value in column.to_pylist()]


def _decimal(column: pa.Array) -> list[Json]:
    return [None if value is None else _decimal_value(value) for value in column.to_pylist()]


def _decimal_value(value: Decimal) -> Json:
    text = format(value, "f")
    number = number_of(text)
    if number is not None:
        return number
    return whole_number(text) if "." not in text else real_number(text)


def _timestamp(column: pa.Array) -> list[Json]:
    kind = column.type
    if kind.tz is None:
        return [None if value is None else _moment(value, kind.unit) for value in _numbers(column)]
    try:
        local = pc.local_timestamp(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        local = column
    texts: list[Json] = []
    for here, utc in zip(_numbers(local), _numbers(column), strict=True):
        if here is None or utc is None:
            texts.append(None)
            continue
        minutes = (here - utc) // _UNITS[kind.unit] // 60
        sign, apart = ("-", -minutes) if minutes < 0 else ("+", minutes)
        texts.append(f"{_moment(here, kind.unit)}{sign}{apart // 60:02d}:{apart % 60:02d}")
    return texts


def _moment(value: int, unit: str) -> str:
    seconds, part = divmod(value, _UNITS[unit])
    return f"{np.datetime64(seconds, 's')}{_fraction(part, unit)}"


def _fraction(part: int, unit: str) -> str:
    """Write the part of a second behind the point, nothing where it is zero."""
    if not part:
        return ""
    digits = f"{part:0{len(str(_UNITS[unit])) - 1}d}".rstrip("0")
    return f".{digits.ljust(_FRACTION_DIGITS, '0') if len(digits) <= _FRACTION_DIGITS else digits.ljust(9, '0')}"


def _date(column: pa.Array) -> list[Json]:
    days_of = 1 if pa.types.is_date32(column.type) else 86_400_000
    return [None if value is None else str(np.datetime64(value // days_of, "D")) for value in _numbers(column)]


def _time(column: pa.Array) -> list[Json]:
    def text(value: int) -> str:
        seconds, part = divmod(value, _UNITS[unit])
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{_fraction(part, unit)}"

    unit = column.type.unit
    return [None if value is None else text(value) for value in _numbers(column)]


def _duration(column: pa.Array) -> list[Json]:
    def text(value: int) -> str:
        seconds, part = divmod(abs(value), _UNITS[unit])
        return f"{'-' if value < 0 else ''}PT{seconds}{_fraction(part, unit).rstrip('0')}S"

    unit = column.type.unit
    return [None if value is None else text(value) for value in _numbers(column)]


def _numbers(column: pa.Array) -> list[int | None]:
    """Return the whole numbers that a column of times is stored as."""
    numbers: list[int | None] = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64()).to_pylist()
    return numbers


def _list(column: pa.Array) -> list[Json]:
    flat, first = json_values(column.flatten()), 0
    lists: list[Json] = []
    for known, length in zip(column.is_valid().to_pylist(), pc.list_value_length(column).to_pylist(), strict=True):
        lists.append(flat[first : first + length] if known else None)
        first += length if known else 0
    return lists


def _map(column: pa.Array) -> list[Json]:
    """Return maps as objects, those with other keys than text as lists of pairs."""
    maps: list[Json] = []
    for entry in column:
        if not entry.is_valid:
            maps.append(None)
            continue
        keys, values = map(json_values, entry.values.flatten())
        maps.append(
            {str(key): value for key, value in zip(keys, values, strict=True)}
            if all(isinstance(key, str) for key in keys) and len(set(map(str, keys))) == len(keys)
            else [[key, value] for key, value in zip(keys, values, strict=True)]
        )
    return maps


def _struct(column: pa.Array) -> list[Json]:
    names = [column.type.field(number).name for number in range(column.type.num_fields)]
    fields = [json_values(field) for field in column.flatten()]
    return [
        dict(zip(names, row, strict=True)) if known else None
        for known, row in zip(
            column.is_valid().to_pylist(), zip(*fields, strict=True) if fields else [()] * len(column), strict=True
        )
    ]


def _extension(column: pa.Array) -> list[Json]:
    if column.type.extension_name == "arrow.uuid":
        return [None if value is None else str(value) for value in column.to_pylist()]
    return json_values(column.storage)


_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_READERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Json]]], ...] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _extension),
    (pa.types.is_null, lambda column: [None] * len(column)),
    (pa.types.is_boolean, lambda column: list(column.to_pylist())),
    (pa.types.is_integer, _whole),
    (pa.types.is_floating, _real),
    (lambda kind: any(is_text(kind) for is_text in _TEXTS), _text),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_date, _date),
    (pa.types.is_time, _time),
    (pa.types.is_duration, _duration),
    (pa.types.is_dictionary, lambda column: json_values(column.dictionary_decode())),
    (pa.types.is_run_end_encoded, lambda column: json_values(pc.run_end_decode(column))),
    (pa.types.is_map, _map),
    (lambda kind: any(is_list(kind) for is_list in _LISTS), _list),
    (pa.types.is_struct, _struct),
)
"""Readers of columns by their type, the first that fits."""
