"""A filter of the images that a question is about: a label, and conditions on what the corpus says of them."""

import operator
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_schemas.errors import UsageError

_CONDITION = re.compile(r"([^<>=]+)(>=|<=|=|>|<)(.*)", re.DOTALL)
_RELATIONS = {"=": pc.equal, ">=": pc.greater_equal, "<=": pc.less_equal, ">": pc.greater, "<": pc.less}
_TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True)
class ImageFilter:
    """A choice of images: those with the label, if one is given, for which all conditions hold.

    A condition is `column=value`, or has >= <= > < instead of the equals sign.
    """

    label: str | None = None
    where: tuple[str, ...] = ()


EVERY_IMAGE = ImageFilter()


@dataclass(frozen=True)
class Condition:
    """A metadata column compared with a value; texts and truth values are equal or not, numbers are ordered too."""

    column: str
    relation: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read a condition from its text; raises UsageError."""
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UsageError(f"where {text!r} is no condition; write column=value, or with numbers column>=value")
        column, relation, value = match.groups()
        return cls(column.strip(), relation, value.strip())

    def holds(self, values: pa.Array) -> NDArray[np.bool_]:
        """Return where the column has such a value; missing ones have none. Raises UsageError for a value of another
        kind."""
        compared = _RELATIONS[self.relation](values, self._value(values.type))
        mask: NDArray[np.bool_] = compared.fill_null(False).to_numpy(zero_copy_only=False)
        return mask

    def _value(self, kind: pa.DataType) -> Any:
        """Return the value as a column of this kind compares it; raises UsageError where it is of another kind."""
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            for number in (int, float):
                try:
                    return number(self.value)
                except ValueError:
                    continue
            raise UsageError(f"metadata column {self.column!r} holds numbers; {self.value!r} is none")
        if self.relation != "=":
            raise UsageError(f"metadata column {self.column!r} holds no numbers; only = compares it")
        if pa.types.is_boolean(kind):
            if self.value not in _TRUTHS:
                raise UsageError(f"metadata column {self.column!r} is true or false, not {self.value!r}")
            return _TRUTHS[self.value]
        return pa.scalar(self.value, kind)


def all_hold(masks: list[NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    """Return where all of some masks hold; None if there are none."""
    combined: NDArray[np.bool_] | None = None
    for mask in masks:
        combined = mask if combined is None else operator.and_(combined, mask)
    return combined
