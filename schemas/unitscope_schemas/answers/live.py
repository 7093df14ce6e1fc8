"""Frames as they travel over a WebSocket: what is asked about one, and the answer before its parts."""

from pydantic import ConfigDict

from unitscope_schemas.answers.served import Answer, Problem
from unitscope_schemas.questions import ProjectionMethod


class LiveAsk(Answer):
    """What is asked about one frame. Its picture is an image of the corpus, or else the next binary message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = 0
    """Comes back with the answer."""
    unit: str
    """`LAYER:UNIT`; the maps are those of all units of its layer."""
    image: str | None = None
    """Id of an image of the corpus, or its first digits."""
    method: ProjectionMethod | None = None
    """How to project an activation back to the pixels; None: not at all."""
    project: str | None = None
    """The unit whose highest activation is projected; None: the same unit."""
    signals: bool = False
    """Show in the maps what reaches each unit of the layer of the projected signal, instead of its activations."""


class LiveUnit(Answer):
    """One unit on a frame; `label` is the label most lifted among its first ranks in the corpus."""

    channel: int
    activation: float | None
    percentile: float | None
    """Share of the corpus's images whose peak for this unit is at most this one; None for a unit without ranks."""
    row: int
    col: int
    label: str | None = None


class LiveProjection(Answer):
    """The part `projection`, a PNG of the network's input: grey is zero, white `scale`, black its negative."""

    unit: str
    method: ProjectionMethod
    activation: float
    row: int
    col: int
    scale: float
    notes: tuple[str, ...]


class LiveAnswer(Answer):
    """A frame's answer; a binary message follows for each of `parts`, in their order.

    `maps` holds a byte for each cell of each unit, unit by unit and row by row on a grid of `maps_grid`: 0 for no
    activation, 255 for the unit's highest in the corpus and above; large grids are shrunk, each cell then the highest
    of some. `map` holds the chosen unit's on the layer's own `grid`. With `signals` 128 is none and 255 the strongest
    of the layer.
    """

    id: int
    layer: str
    units: int
    grid: tuple[int, int]
    maps_grid: tuple[int, int]
    unit: LiveUnit
    top: list[LiveUnit]
    """The units of the layer that the frame excites most unusually, by percentile."""
    projection: LiveProjection | None
    seconds: dict[str, float]
    """By stage of the work."""
    signals: bool
    """Whether the maps show signals."""
    parts: list[str]


class LiveProblem(Answer):
    """Why a frame has no answer; the next one may."""

    id: int | None
    problem: Problem
    retry_after_s: int | None
