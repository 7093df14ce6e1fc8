"""Answers about what units respond to and what pictures excite: rows and pages of the command line, the API and
notebooks.

Rows are plain data classes, for there may be a thousand on a page: a frozen one takes five times, a model eighteen
times as long to make.
"""

from dataclasses import dataclass

from unitscope_schemas.answers.served import Answer
from unitscope_schemas.geometry import Box
from unitscope_schemas.questions import UnitStatus


@dataclass
class PatchRow:
    """An exemplar of a unit: where in which image it peaks, and how unusually high."""

    rank: int
    image_id: str
    path: str
    label: str | None
    labels: list[str]
    """All labels of the image, `label` first."""
    activation: float
    percentile: float
    """Share of the atlas's images whose peak for this unit is at most this one."""
    row: int
    col: int
    box: Box
    """Theoretical receptive field in pixels of the upright original picture, clipped at its border."""
    effective_box: Box
    padding: Box
    """Input pixels of the receptive field beyond each border: (top, left, bottom, right)."""
    duplicate_group: str | None


class PatchPage(Answer):
    """A page of a unit's exemplars with the cursor to the next page."""

    unit: str
    status: UnitStatus
    note: str | None
    """Reason why there are no patches or unusual ones, if so."""
    stale_images: int = 0
    """Number of removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    kept: int | None = None
    """Number of first ranks of each unit that the atlas stores, null if all: no row lies beyond them."""
    rows: list[PatchRow]
    next: str | None


@dataclass
class NeighborRow:
    """The best patch of one of the images that are nearest to a picture or vector."""

    rank: int
    image_id: str
    path: str
    label: str | None
    labels: list[str]
    """All labels of the image, `label` first."""
    score: float
    """Cosine similarity of the pooled embeddings."""
    box: Box


class SearchInfo(Answer):
    """How a search for nearest patches was done, and how exact its index is."""

    exact: bool
    layer: str
    index: str
    vectors: int
    recall_at_10: float
    """Recall of the first ten neighbors, measured against exact search when the index was built."""


class NeighborPage(Answer):
    """A page of the nearest patches of one picture or vector."""

    query_box: Box | None
    """Box of the picture that was searched with, in its original pixels; null for a search with a vector."""
    rows: list[NeighborRow]
    search: SearchInfo


class NeighborBatch(Answer):
    """The pages of several searches, those of vectors first."""

    pages: list[NeighborPage]


@dataclass
class ExplainRow:
    """A unit that a picture excites: its activation and percentile, and where it peaks."""

    layer: str
    channel: int
    activation: float
    percentile: float
    row: int
    col: int
    box: Box


class ExplainPage(Answer):
    """A page of the units that a picture excites most unusually."""

    stale_images: int = 0
    """Number of removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    among: int | None = None
    """Number of images that pass the filter: percentiles are shares of them. Null without a filter."""
    kept: int | None = None
    """Number of first ranks of each unit that the atlas stores, null if all: a percentile below theirs is a lower
    bound."""
    rows: list[ExplainRow]


@dataclass
class UnitRow:
    """The status and statistics of one unit's peaks over the corpus."""

    layer: str
    channel: int
    status: UnitStatus
    image_count: int
    nonfinite_count: int
    positive_share: float
    maximum: float | None
    minimum: float | None
    mean: float | None
    std: float | None
    median: float | None
    q90: float | None
    q99: float | None
    top_label: str | None


class UnitPage(Answer):
    """A page of a layer's units with the cursor to the next page."""

    layer: str
    stale_images: int = 0
    """Number of removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    rows: list[UnitRow]
    next: str | None


@dataclass
class LabelRow:
    """A label among the first ranks of a unit, with its share and lift."""

    label: str
    count: int
    share: float
    lift: float
    """Lift of the label: `share` over the label's share of the corpus."""
    lift_low: float
    lift_high: float
    """Upper end of the 95 % interval of the lift, whose lower end is `lift_low` (Wilson 1927)."""


class LabelPage(Answer):
    """A page of the labels among a unit's first ranks."""

    unit: str
    ranks: int
    """Number of first ranks over which the labels are counted."""
    note: str | None = None
    """What limits the answer: a unit that is not live, or a tie of peaks at the last of those ranks."""
    stale_images: int = 0
    """Number of removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    rows: list[LabelRow]


@dataclass
class QuantileRow:
    """A quantile of a unit's peaks: `share` of them are at most `activation`."""

    share: float
    activation: float


class Histogram(Answer):
    """The distribution of a unit's peaks: one peak per image."""

    unit: str
    image_count: int
    stale_images: int = 0
    """Number of removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    zero_count: int
    nonfinite_count: int
    edges: list[float]
    counts: list[int]
    quantiles: list[QuantileRow]


class ActivationMap(Answer):
    """A unit's activation at every location of its grid for one picture."""

    unit: str
    values: list[list[float | None]]
    seen_box: Box
    maximum: float | None
    row: int
    col: int
