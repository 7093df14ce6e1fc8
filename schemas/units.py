"""Layers and units: their names, shapes and places."""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from schemas.errors import UsageError
from schemas.geometry import Location, ReceptiveField, Size


class UnitId(NamedTuple):
    """One channel of a layer, written `layer:channel`."""

    layer: str
    channel: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}"

    @classmethod
    def parse(cls, text: str) -> "UnitId":
        """Read `layer:channel`, for example `layer4.1.conv2:130`; raises UsageError."""
        layer, colon, channel = text.rpartition(":")
        if not colon or not layer or not channel.isdecimal():
            raise UsageError(f"unit {text!r} is not LAYER:UNIT, for example layer4.1.conv2:130")
        return cls(layer, int(channel))


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
