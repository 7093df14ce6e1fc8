"""Frames as they travel over a WebSocket: the question about a frame, and the answer before its parts."""

from typing import Annotated

from pydantic import ConfigDict, Field

from unitscope_schemas.answers.served import Answer, Problem
from unitscope_schemas.questions import ProjectionMethod, Text


class LiveAsk(Answer):
    """The question about one frame. Its picture is an image of the corpus, or else the next binary message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[int, Field(ge=-(2**53), le=2**53)] = 0
    """Number of the question, which comes back with the answer."""
    unit: Text
    """Unit as `LAYER:UNIT`; the maps are those of all units of its layer."""
    image: Text | None = None
    """Id of an image of the corpus, or its first digits."""
    method: ProjectionMethod | None = None
    """Method that projects an activation back to the pixels; none is projected where it is None."""
    project: Text | None = None
    """Unit whose highest activation is projected; None means `unit`."""
    signals: bool = False
    """Whether the maps show what reaches each unit of the layer of the projected signal, instead of its activations."""


class LiveUnit(Answer):
    """A unit's response to a frame; `label` is the label most lifted among its first ranks in the corpus."""

    channel: int
    activation: float | None
    percentile: float | None
    """Share of the corpus's images whose peak for this unit is at most this one; None for a unit without ranks."""
    row: int
    col: int
    label: str | None = None


class LiveProjection(Answer):
    """The projection that the part `projection` shows, a PNG of the network's input: grey is zero, white `scale`, black
    its negative."""

    unit: str
    method: ProjectionMethod
    activation: float
    row: int
    col: int
    scale: float
    notes: tuple[str, ...]


class LiveAnswer(Answer):
    """The answer to a frame; a binary message follows for each of `parts`, in their order.

    `maps` holds a byte for each cell of each unit, unit by unit and row by row on a grid of `maps_grid`: 0 for no
    activation, 255 for the unit's highest in the corpus and above. A large grid is shrunk: each of its cells is then
    the highest of several. `map` holds the chosen unit's activations on the layer's full `grid`. With `signals` 128 is
    none and 255 the strongest of the layer.
    """

    id: int
    layer: str
    units: int
    grid: tuple[int, int]
    maps_grid: tuple[int, int]
    unit: LiveUnit
    top: list[LiveUnit]
    """Units of the layer that the frame excites most unusually, by percentile."""
    projection: LiveProjection | None
    seconds: dict[str, float]
    """Seconds that each stage of the work took."""
    signals: bool
    """Whether the maps show signals."""
    parts: list[str]


class LiveProblem(Answer):
    """The reason why a frame has no answer; the next frame may have one."""

    id: int | None
    problem: Problem
    retry_after_s: int | None
