"""Layers and units: their names, shapes and locations."""

import hashlib
import re
import struct
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from unitscope_schemas.errors import UsageError, listing
from unitscope_schemas.geometry import Location, ReceptiveField, Size
from unitscope_schemas.layout import LayerName


class UnitId(NamedTuple):
    """A unit is one channel of a layer, written `layer:channel`."""

    layer: str
    channel: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.channel}"

    @property
    def name(self) -> str:
        """Return the unit's name within its layer, which is its channel."""
        return str(self.channel)

    @classmethod
    def parse(cls, text: str) -> "UnitId":
        """Read a unit from `layer:channel`, for example `layer4.1.conv2:130`; raise UsageError for another form."""
        layer, colon, channel = text.rpartition(":")
        if not colon or not layer or not _CHANNEL.fullmatch(channel):
            raise UsageError(f"unit {text!r} is not LAYER:UNIT, for example layer4.1.conv2:130")
        return cls(layer, int(channel))


class DirectionId(NamedTuple):
    """A direction is a vector over the units of a layer.

    It is written `layer:direction-` and the first 16 digits of the vector's SHA-256.
    """

    layer: str
    name: str
    """Name within the layer, `direction-` and digits."""

    def __str__(self) -> str:
        return f"{self.layer}:{self.name}"

    @classmethod
    def of(cls, layer: str, vector: Sequence[float]) -> "DirectionId":
        """Return the id of a vector of numbers that float32 holds exactly."""
        digest = hashlib.sha256(struct.pack(f"<{len(vector)}f", *vector)).hexdigest()
        return cls(layer, f"direction-{digest[:16]}")


Target = UnitId | DirectionId
"""Unit or direction that a picture can be made for."""


def parse_target(text: str) -> Target:
    """Read a target from `layer:channel` or `layer:direction-…`; raise UsageError for another form."""
    layer, _, name = text.rpartition(":")
    return DirectionId(layer, name) if layer and _DIRECTION.fullmatch(name) else UnitId.parse(text)


_CHANNEL = re.compile("[0-9]{1,10}")
"""Pattern of a channel."""
_DIRECTION = re.compile("direction-[0-9a-f]{16}")
"""Pattern of a direction's name."""


class Layout(BaseModel):
    """Where images, channels and places lie in an output whose axes or order are not those that its kind says."""

    model_config = ConfigDict(frozen=True)

    image_axis: int = 0
    """Axis of the images; in `(token, image, channel)`, as sequence-first transformers have it, it is 1."""
    windows: int = 1
    """Number of entries that each image has on that axis, for example its windows of attention."""
    images_inside: bool = False
    """Whether a window's images lie side by side, rather than an image's windows."""
    channel_axis: int
    """Axis of the channels once images are first and windows, if there are several, second."""
    order: tuple[int, ...] = ()
    """Place of each location among the output's own: class and register tokens first, then the grid in row order;
    empty where the output has that order already."""


class LayerSpec(BaseModel):
    """A recorded layer: what it puts out, and what its units see."""

    model_config = ConfigDict(frozen=True)

    name: LayerName
    """Module path, with `@1` for the second call of a module."""
    kind: Literal["map", "vector", "tokens"]
    """Word for the output's axes: `map` is (image, channel, row, col), or with `channels_last` (image, row, col,
    channel); `vector` is (image, channel); `tokens` is (image, token, channel)."""
    units: int
    """Number of units."""
    grid: Size
    """Rows and columns of locations, which tokens behind the prefix fill in row order; 1 × 1 for a vector, 0 × 0 for
    tokens that have no place in the picture."""
    prefix_tokens: int = 0
    """Number of class and register tokens, and of others without a place, which come first."""
    channels_last: bool = False
    """Whether a map's channels are its last axis."""
    layout: Layout | None = None
    """Axes and order of the output, if they are not those that `kind` and `channels_last` say."""
    receptive_field: ReceptiveField

    @property
    def placed(self) -> bool:
        """Return whether the layer has locations that lie somewhere in the picture."""
        return self.grid.height * self.grid.width > 0

    def location(self, index: int) -> Location:
        """Return the location of a flat index in row order, class and register tokens first."""
        if index < self.prefix_tokens:
            return Location(-1, index)
        return Location(*divmod(index - self.prefix_tokens, self.grid.width))


def unmeasured_words(layers: Iterable[LayerSpec]) -> list[str]:
    """Return one sentence for each reason why effective fields could not be measured, with the layers it holds for."""
    names: dict[str, list[str]] = {}
    for layer in layers:
        if layer.receptive_field.unmeasured:
            names.setdefault(layer.receptive_field.unmeasured, []).append(layer.name)
    return [
        f"the effective field of {listing(held)} is not measured but as large as the theoretical one: {reason}"
        for reason, held in names.items()
    ]
