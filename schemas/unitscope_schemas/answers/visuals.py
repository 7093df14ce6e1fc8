"""Stored pictures of what a unit responds to: inputs optimised for it, and projections of its activations to pixels."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from unitscope_schemas.answers.served import Answer
from unitscope_schemas.entries.entry import Entry
from unitscope_schemas.entries.part import Part
from unitscope_schemas.geometry import Box, Location
from unitscope_schemas.layout import LayerName
from unitscope_schemas.units import DirectionId, Target, UnitId

VisualKind = Literal["optimised", "projection"]


class VisualKey(Entry):
    """A key holds all that decides a picture; its digest is the picture's name, so that nothing stored is made twice.

    It holds the atlas key but no version: a picture is of the model, not of the corpus.
    """

    atlas_key: str
    kind: VisualKind
    layer: LayerName
    channel: int | None
    """Channel of the unit; None where the picture is of a direction."""
    method: str
    """Name of the recipe, or of the method of projection; see `shown_method`."""
    settings: dict[str, Any]
    """Settings of the method, all of them: other values give another picture."""
    objective: str = ""
    """Objective of an optimised picture: what was made large."""
    start: str = ""
    """Start of an optimised picture: `noise`, `grey`, or the id of an image of the corpus."""
    seed: int | None = None
    number: int = 0
    """Number of the picture in a batch of pictures that were made to differ."""
    count: int = 1
    """Number of pictures in that batch."""
    image_id: str | None = None
    location: Location | None = None
    """Location on the layer's grid from which a projection starts."""
    direction: tuple[float, ...] | None = None
    """Coefficient for each unit of the layer, where the picture is of a direction and not of a single unit."""

    @property
    def target(self) -> Target:
        """Return the unit or the direction that the picture is of."""
        if self.channel is not None:
            return UnitId(self.layer, self.channel)
        return DirectionId.of(self.layer, self.direction or ())

    @property
    def shown_method(self) -> str:
        """Return the name of the method as answers show it.

        Gradients times the input have always been stored as `gradient`, with rules that say so.
        """
        times_input = self.kind == "projection" and str(self.settings.get("rules")).endswith("times the input")
        return "gradient-x-input" if times_input else self.method

    @property
    def id(self) -> str:
        """Return the picture's name: 32 hexadecimal digits."""
        # pictures of units keep the names that they had before there were directions
        left_out = {"direction"} if self.direction is None else None
        return hashlib.sha256(self.model_dump_json(exclude=left_out).encode()).hexdigest()[:32]


class Visual(Entry):
    """A stored picture's document. It is written after its picture, so a picture that has one is complete."""

    key: VisualKey
    picture: Part
    activation: float | None
    """Activation of the unit. Of an optimised picture it is the one on the stored 8-bit pixels, run through the plain
    forward: its peak, or its lowest value where the objective is negative, of a direction the product with it; of a
    projection it is the one that was projected. None where it is not finite."""
    location: Location | None
    """Location of that activation on the layer's grid."""
    box: Box | None = None
    """Box of input pixels that the location of an optimised picture can see; of a projection its patch in the original
    picture."""
    notes: tuple[str, ...] = ()
    """Sentences on what was done otherwise than the method says, and why."""
    libraries: dict[str, str]
    """Versions of the libraries that made the picture."""
    seconds: float


@dataclass
class VisualRow:
    """A stored picture of a unit, judged against the corpus of the opened version."""

    id: str
    unit: str
    """Unit as `layer:channel`, or direction as `layer:direction-…`."""
    kind: VisualKind
    method: str
    objective: str
    start: str
    seed: int | None
    number: int
    count: int
    activation: float | None
    """Activation of the unit on the stored 8-bit picture, or the one that was projected."""
    corpus_maximum: float | None
    """Maximum of the unit over the corpus; None where a low activation was the aim, and where the atlas has no peaks to
    judge by: of a direction, and of a layer that it does not record."""
    corpus_minimum: float | None
    """Lowest peak of the unit on any picture of the corpus, where a low activation was the aim; else None."""
    percentile: float | None
    """Share of the atlas's images whose peak for this unit is at most this activation; None where a low one was the
    aim."""
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
    """A page of the stored pictures of a unit or direction."""

    unit: str
    stale_images: int = 0
    """Number of removed images, shown nowhere, that percentiles still count until the atlas is compacted."""
    rows: list[VisualRow]
    next: str | None = None


class LinkedVisualPage(VisualPage):
    """A visual page whose rows have their addresses."""

    rows: list[LinkedVisualRow]  # type: ignore[assignment]


@dataclass
class EigenRow:
    """The mean (component 0) or a principal component of a unit's patches, as a picture."""

    component: int
    share: float | None
    """Share of the patches' variance that the component explains; None for the mean."""
    scale: float | None
    """Value that is shown white, of the component of unit length; grey is zero, black the negative. None for the mean,
    and for a component of no variance, which is all grey."""
    deviation: float | None
    """Standard deviation of the patches along the component, in levels of 255 at the pixel where it is largest; below
    half a level the picture is dim. None for the mean."""


@dataclass
class LinkedEigenRow(EigenRow):
    """A mean or a component with its address at the server that answers."""

    url: str
    """Address of the picture."""


class EigenPage(Answer):
    """A page of a unit's eigen-patches."""

    unit: str
    height: int
    width: int
    """Width of the patches, in pixels of the network's input."""
    patches: int
    """Number of patches that lie within their pictures, with the peak in the middle."""
    left_out: int
    rows: list[EigenRow]
    next: str | None = None


class LinkedEigenPage(EigenPage):
    """A page of eigen-patches whose rows have their addresses."""

    rows: list[LinkedEigenRow]  # type: ignore[assignment]


@dataclass
class FilterRow:
    """The weights of one unit as a picture: grey is zero, white the scale, black its negative.

    The scale is the largest magnitude of the unit's weights, or a hundredth of the layer's if that is larger.
    """

    channel: int
    unit: str
    minimum: float
    maximum: float
    scale: float
    share: float
    """Largest magnitude of the unit's weights as a share of the layer's."""
    note: str
    """What is to be known of the weights: that there are hardly any, or that some are not finite."""
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
    """A page of a layer's filters."""

    layer: str
    rows: list[FilterRow]
    next: str | None = None


class LinkedFilterPage(FilterPage):
    """A filter page whose rows have their addresses."""

    rows: list[LinkedFilterRow]  # type: ignore[assignment]
