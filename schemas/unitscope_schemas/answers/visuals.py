"""Stored pictures of what a unit looks for: inputs optimised for it, and projections of its activations to pixels."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from unitscope_schemas.answers.served import Answer
from unitscope_schemas.geometry import Box, Location
from unitscope_schemas.manifest import Entry, Part
from unitscope_schemas.units import DirectionId, Target, UnitId

VisualKind = Literal["optimised", "projection"]


class VisualKey(Entry):
    """All that decides a picture; its digest is the picture's name, so that nothing stored is made twice.

    It holds the atlas key but no version: a picture is of the model, not of the corpus.
    """

    atlas_key: str
    kind: VisualKind
    layer: str
    channel: int | None
    """None where the picture is of a direction."""
    method: str
    """Name of the recipe, or of the way to project."""
    settings: dict[str, Any]
    """Every figure of that method: other figures give another picture."""
    objective: str = ""
    """Of an optimised picture: what was made large."""
    start: str = ""
    """Of an optimised picture: `noise`, `grey`, or the id of an image of the corpus."""
    seed: int | None = None
    number: int = 0
    """Place in a batch of pictures that were made to differ."""
    count: int = 1
    """Size of that batch."""
    image_id: str | None = None
    location: Location | None = None
    """Of a projection: from where on the layer's grid."""
    direction: tuple[float, ...] | None = None
    """A number for each unit of the layer, where the picture is of no single one."""

    @property
    def target(self) -> Target:
        if self.channel is not None:
            return UnitId(self.layer, self.channel)
        return DirectionId.of(self.layer, self.direction or ())

    @property
    def id(self) -> str:
        """The picture's name: 32 hexadecimal digits."""
        # pictures of units keep the names that they had before there were directions
        left_out = {"direction"} if self.direction is None else None
        return hashlib.sha256(self.model_dump_json(exclude=left_out).encode()).hexdigest()[:32]


class Visual(Entry):
    """One stored picture. Written after its picture, so a picture that has this document is complete."""

    key: VisualKey
    picture: Part
    activation: float | None
    """Of an optimised picture, the unit's on the stored 8-bit pixels, run through the plain forward: its peak, or its
    lowest value where the objective is negative, of a direction the product with it; of a projection, the one that was
    projected. None where it is not finite."""
    location: Location | None
    """Where that activation, or the projected one, lies on the layer's grid."""
    box: Box | None = None
    """Of an optimised picture the input pixels that the location can see; of a projection its patch in the original
    picture."""
    notes: tuple[str, ...] = ()
    """What was done otherwise than the method says, and why."""
    libraries: dict[str, str]
    """Versions that made it."""
    seconds: float


@dataclass
class VisualRow:
    """A stored picture of a unit, judged against the corpus of the opened version."""

    id: str
    unit: str
    """`layer:channel`, or `layer:direction-…`."""
    kind: VisualKind
    method: str
    objective: str
    start: str
    seed: int | None
    number: int
    count: int
    activation: float | None
    """Of the unit on the stored 8-bit picture, or the one that was projected."""
    corpus_maximum: float | None
    """None where the atlas has no peaks to judge by: of a direction, and of a layer that it does not record."""
    percentile: float | None
    """Share of the atlas's images whose peak for this unit is at most this activation; None where low was the aim."""
    image_id: str | None
    row: int | None
    col: int | None
    box: Box | None
    note: str
    path: str
    """Path of the picture inside the atlas."""


@dataclass
class LinkedVisualRow(VisualRow):
    """A stored picture with its address at the server that answers."""

    url: str
    """Address of the picture."""


class VisualPage(Answer):
    unit: str
    stale_images: int = 0
    """Removed images, shown nowhere, that percentiles still count until the atlas is compacted."""
    rows: list[VisualRow]
    next: str | None = None


class LinkedVisualPage(VisualPage):
    """A visual page whose rows have their addresses."""

    rows: list[LinkedVisualRow]  # type: ignore[assignment]


@dataclass
class EigenRow:
    """Mean (component 0) or a principal component of a unit's patches, as a picture."""

    component: int
    share: float | None
    """Of the variance of the patches; None for the mean."""
    scale: float | None
    """Of the component of unit length, what is white; grey is zero, black the negative. None for the mean."""


@dataclass
class LinkedEigenRow(EigenRow):
    """A mean or a component with its address at the server that answers."""

    url: str
    """Address of the picture."""


class EigenPage(Answer):
    unit: str
    height: int
    width: int
    """Of the patches, in pixels of the network's input."""
    patches: int
    """That lie within their pictures, with the peak in the middle."""
    left_out: int
    rows: list[EigenRow]
    next: str | None = None


class LinkedEigenPage(EigenPage):
    """A eigen page whose rows have their addresses."""

    rows: list[LinkedEigenRow]  # type: ignore[assignment]


@dataclass
class FilterRow:
    """One unit's weights as a picture: grey is zero, white the scale, black its negative."""

    channel: int
    unit: str
    minimum: float
    maximum: float
    scale: float
    input_channels: int
    height: int
    width: int


@dataclass
class LinkedFilterRow(FilterRow):
    """A filter with its addresses at the server that answers."""

    url: str
    """Address of the picture."""
    unit_url: str | None
    """Address of the unit; None where the layer is not recorded in this atlas."""


class FilterPage(Answer):
    layer: str
    rows: list[FilterRow]
    next: str | None = None


class LinkedFilterPage(FilterPage):
    """A filter page whose rows have their addresses."""

    rows: list[LinkedFilterRow]  # type: ignore[assignment]
