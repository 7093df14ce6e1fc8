"""Layers and units: their names, shapes and places."""

import hashlib
import re
import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location, ReceptiveField, Size


class UnitId(NamedTuple):
    """One channel of a layer, written `layer:channel`."""

    layer: str
    channel: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}"

    @property
    def place(self) -> str:
        """What tells it from all else of its layer."""
        return str(self.channel)

    @classmethod
    def parse(cls, text: str) -> "UnitId":
        """Read `layer:channel`, for example `layer4.1.conv2:130`; raises UsageError."""
        layer, colon, channel = text.rpartition(":")
        if not colon or not layer or not channel.isdecimal():
            raise UsageError(f"unit {text!r} is not LAYER:UNIT, for example layer4.1.conv2:130")
        return cls(layer, int(channel))


class DirectionId(NamedTuple):
    """A vector over the units of a layer, written `layer:direction-` and the first digits of the vector's digest."""

    layer: str
    name: str

    def __str__(self) -> str:
        return f"{self.layer}:{self.name}"

    @property
    def place(self) -> str:
        """What tells it from all else of its layer."""
        return self.name

    @classmethod
    def of(cls, layer: str, vector: Sequence[float]) -> "DirectionId":
        """The name of a vector of numbers that float32 holds exactly."""
        digest = hashlib.sha256(struct.pack(f"<{len(vector)}f", *vector)).hexdigest()
        return cls(layer, f"direction-{digest[:16]}")


Target = UnitId | DirectionId
"""What a picture can be made of."""


def parse_target(text: str) -> Target:
    """Read `layer:channel` or `layer:direction-…`; raises UsageError."""
    layer, _, name = text.rpartition(":")
    return DirectionId(layer, name) if layer and _DIRECTION.fullmatch(name) else UnitId.parse(text)


_DIRECTION = re.compile("direction-[0-9a-f]{16}")


class LayerSpec(BaseModel):
    """A recorded layer.

    `kind`: `map` is (image, channel, row, col), or with `channels_last` (image, row, col, channel); `vector`
    (image, channel); `tokens` (image, token, channel) whose first `prefix_tokens` are class and register tokens
    and whose others fill the grid in row order.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["map", "vector", "tokens"]
    units: int
    grid: Size
    prefix_tokens: int = 0
    channels_last: bool = False
    receptive_field: ReceptiveField

    def location(self, index: int) -> Location:
        """The location of a flat index in row order, class and register tokens first."""
        if index < self.prefix_tokens:
            return Location(-1, index)
        return Location(*divmod(index - self.prefix_tokens, self.grid.width))
