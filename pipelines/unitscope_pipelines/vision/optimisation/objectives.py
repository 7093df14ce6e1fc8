"""Objectives that are made large: units, channels, directions; they add and multiply (lucid, Olah et al. 2017)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_schemas.errors import UsageError, listing
from unitscope_schemas.geometry import Location
from unitscope_schemas.units import LayerSpec, UnitId

Values = Float[Tensor, " image"]
"""One value for each picture of a batch."""
Outputs = Mapping[str, Float[Tensor, "image ..."]]
"""Outputs of layers by name."""


@dataclass(frozen=True)
class Objective:
    """An objective gives a value to each picture of a batch, from the outputs of some layers."""

    text: str
    """How the objective is written down."""
    layers: frozenset[str]
    """Names of the layers whose outputs it needs."""
    evaluate: Callable[[Outputs], Values]

    def __add__(self, other: "Objective") -> "Objective":
        text = f"{self.text} + {other.text}"
        layers = self.layers | other.layers
        return Objective(text, layers, lambda outputs: self.evaluate(outputs) + other.evaluate(outputs))

    def __mul__(self, other: "Objective | float") -> "Objective":
        if not isinstance(other, Objective):
            text = f"{other:g} * ({self.text})"
            return Objective(text, self.layers, lambda outputs: other * self.evaluate(outputs))
        text = f"({self.text}) * ({other.text})"
        layers = self.layers | other.layers
        return Objective(text, layers, lambda outputs: self.evaluate(outputs) * other.evaluate(outputs))

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return Objective(f"-({self.text})", self.layers, lambda outputs: -self.evaluate(outputs))

    def __sub__(self, other: "Objective") -> "Objective":
        return self + -other


def centre(layer: LayerSpec) -> Location:
    """Return the location in the middle of a layer's grid, the later one of two."""
    return Location(layer.grid.height // 2, layer.grid.width // 2)


def at_location(layer: LayerSpec, channel: int, location: Location | None = None) -> Objective:
    """Return the activation of a unit at a location, by default in the centre.

    In a fully connected layer it is the unit's only value, for example a class's logit.
    """
    row, col = location or centre(layer)
    text = f"unit {UnitId(layer.name, channel)} at {row},{col}"
    return Objective(text, frozenset([layer.name]), lambda outputs: _map(outputs, layer)[:, channel, row, col])


def channel_mean(layer: LayerSpec, channel: int) -> Objective:
    """Return the mean of a unit over all locations."""
    text = f"channel {UnitId(layer.name, channel)}"
    return Objective(text, frozenset([layer.name]), lambda outputs: _map(outputs, layer)[:, channel].mean((1, 2)))


def direction(layer: LayerSpec, vector: Float[Tensor, " unit"], location: Location | None = None) -> Objective:
    """Return the layer's output along a vector over its units at a location, by default its mean over all.

    Raises UsageError for a vector that does not fit.
    """
    check_direction(layer, vector.tolist())
    where = "" if location is None else f" at {location.row},{location.col}"

    def along(outputs: Outputs) -> Values:
        values = torch.einsum("nurc,u->nrc", _map(outputs, layer), vector.to(outputs[layer.name]))
        return values.mean((1, 2)) if location is None else values[:, location.row, location.col]

    return Objective(f"direction {layer.name}{where}", frozenset([layer.name]), along)


def check_direction(layer: LayerSpec, vector: Sequence[float]) -> None:
    """Raise UsageError unless this is a vector over a layer's units: finite numbers, one of them other than zero."""
    if len(vector) != layer.units or not all(map(isfinite, vector)) or not any(vector):
        raise UsageError(f"a direction of {layer.name} is {layer.units} finite numbers, one of them other than zero")


def diversity(layer: LayerSpec) -> Objective:
    """Return how unlike the batch's pictures are to a layer.

    It is minus the mean cosine of their Gram matrices (Olah et al. 2017).
    """

    def unlike(outputs: Outputs) -> Values:
        maps = _map(outputs, layer).flatten(2)
        grams = F.normalize(torch.einsum("nup,nvp->nuv", maps, maps).flatten(1))
        cosines = grams @ grams.T
        return (1 - cosines.sum(1)) / max(1, len(grams) - 1)

    return Objective(f"diversity {layer.name}", frozenset([layer.name]), unlike)


OBJECTIVES: Mapping[str, Callable[[LayerSpec, int], Objective]] = {
    "unit": at_location,
    "channel": channel_mean,
    "-unit": lambda layer, channel: -at_location(layer, channel),
    "-channel": lambda layer, channel: -channel_mean(layer, channel),
}
"""Objectives of a single unit, by the names that a person gives."""

DIRECTIONS: Mapping[str, Callable[[LayerSpec, Float[Tensor, " unit"]], Objective]] = {
    "direction": lambda layer, vector: direction(layer, vector, centre(layer)),
    "-direction": lambda layer, vector: -direction(layer, vector, centre(layer)),
}
"""Objectives of a vector over a layer's units, by the names that a person gives."""

CLASSES: Mapping[str, str] = {"class": "unit", "-class": "-unit"}
"""Objectives of a class, and those of the unit that is its logit."""


def check_name(name: str) -> None:
    """Raise UsageError, with the names of all objectives, unless this is one of them."""
    known = (*OBJECTIVES, *CLASSES, *DIRECTIONS)
    if name not in known:
        raise UsageError(f"objective {name!r} is unknown; there are {listing(known)}")


def unit_objective(name: str, layer: LayerSpec, channel: int) -> Objective:
    """Return the objective of this name for a unit.

    Raises UsageError for a name that is none of `OBJECTIVES`, and for a unit that the layer does not have.
    """
    if name not in OBJECTIVES:
        raise UsageError(f"objective {name!r} is none of a unit; there are {listing(OBJECTIVES)}")
    if not 0 <= channel < layer.units:
        raise UsageError(f"unit {UnitId(layer.name, channel)} does not exist: it has units 0 to {layer.units - 1}")
    return OBJECTIVES[name](layer, channel)


def direction_objective(name: str, layer: LayerSpec, vector: Float[Tensor, " unit"]) -> Objective:
    """Return the objective of this name for a vector over a layer's units.

    Raises UsageError for a name that is none of `DIRECTIONS`, and for a vector that does not fit.
    """
    if name not in DIRECTIONS:
        raise UsageError(f"objective {name!r} is none of a direction; there are {listing(DIRECTIONS)}")
    return DIRECTIONS[name](layer, vector)


def _map(outputs: Outputs, layer: LayerSpec) -> Float[Tensor, "image unit row col"]:
    """Return a layer's output on its grid."""
    return as_map(outputs[layer.name], layer)
