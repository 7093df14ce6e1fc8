"""What units respond to and pictures excite, as it travels: rows and pages of the command line, the API and notebooks.

Rows are plain data classes, for there may be a thousand on a page: a frozen one takes five times, a model eighteen
times as long to make.
"""

from dataclasses import dataclass

from unitscope_schemas.answers.served import Answer
from unitscope_schemas.geometry import Box
from unitscope_schemas.questions import UnitStatus


@dataclass
class PatchRow:
    """One exemplar of a unit: where in which image it peaks, and how unusually high."""

    rank: int
    image_id: str
    path: str
    label: str | None
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
    unit: str
    status: UnitStatus
    note: str | None
    """Why there are no or unusual patches, if so."""
    stale_images: int = 0
    """Removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    kept: int | None = None
    """First ranks of each unit that the atlas keeps, null if all: no row lies beyond them."""
    rows: list[PatchRow]
    next: str | None


@dataclass
class NeighborRow:
    rank: int
    image_id: str
    path: str
    label: str | None
    score: float
    """Cosine similarity of the pooled embeddings."""
    box: Box


class SearchInfo(Answer):
    exact: bool
    layer: str
    index: str
    vectors: int
    recall_at_10: float
    """Measured at build time against exact search."""


class NeighborPage(Answer):
    query_box: Box | None
    """The asked part of the picture in its original pixels; null where a vector was asked for."""
    rows: list[NeighborRow]
    search: SearchInfo


class NeighborBatch(Answer):
    """One page per question, vectors first."""

    pages: list[NeighborPage]


@dataclass
class ExplainRow:
    layer: str
    channel: int
    activation: float
    percentile: float
    row: int
    col: int
    box: Box


class ExplainPage(Answer):
    stale_images: int = 0
    """Removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    among: int | None = None
    """Images that pass the filter: percentiles are shares of them. None without a filter."""
    kept: int | None = None
    """First ranks of each unit that the atlas keeps, null if all: a percentile below theirs is a lower bound."""
    rows: list[ExplainRow]


@dataclass
class UnitRow:
    """Status and statistics of one unit's peaks over the corpus."""

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
    layer: str
    stale_images: int = 0
    """Removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    rows: list[UnitRow]
    next: str | None


@dataclass
class LabelRow:
    label: str
    count: int
    share: float
    lift: float
    """The share over the label's share of the corpus."""
    lift_low: float
    lift_high: float
    """Both ends of its 95 % interval (Wilson 1927)."""


class LabelPage(Answer):
    unit: str
    ranks: int
    """Over how many first ranks the labels are counted."""
    stale_images: int = 0
    """Removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    rows: list[LabelRow]


@dataclass
class QuantileRow:
    share: float
    activation: float


class Histogram(Answer):
    """Distribution of a unit's peaks: one peak per image."""

    unit: str
    image_count: int
    stale_images: int = 0
    """Removed images, shown nowhere, that these figures still count until the atlas is compacted."""
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
