"""Questions and answers as they travel: rows and pages of the command line, the API and notebooks.

Rows are plain data classes, for there may be a thousand on a page: a frozen one takes five times, a model eighteen
times as long to make.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.geometry import Box, Size

Order = Literal["desc", "asc", "random"]
UnitStatus = Literal["live", "rare", "dead", "negative-only", "non-finite"]


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


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


class PatchQuery(Answer):
    """Which patches of a unit to list, and from where on."""

    limit: int = Field(9, ge=1, le=1000)
    quantile: tuple[float, float] | None = None
    """Percentile band: both ends within 0..1, inclusive."""
    label: str | None = None
    where: tuple[str, ...] = ()
    """Conditions on metadata that all must hold: `column=value`, with numbers also >=, <=, > and <."""
    order: Order = "desc"
    seed: int = 0
    """Of the random order."""
    expand_duplicates: bool = False
    """List near duplicates too, instead of the best of each group."""
    cursor: str | None = None


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


class NeighborQuery(Answer):
    """A batch of questions for nearest patches: vectors, uploads, or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vectors: list[list[float]] = Field(default=[], max_length=100)
    """As wide as the embedded layer has units."""
    uploads: list[str] = Field(default=[], max_length=100)
    k: int = Field(9, ge=1, le=1000)
    exact: bool = False
    label: str | None = None
    """Only images of this label."""
    where: tuple[str, ...] = ()
    """Only images of this metadata: conditions `column=value`, or with numbers `>=`, `<=`, `>`, `<`."""


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


class LayerPage(Answer):
    rows: "list[LayerRow]"
    next: str | None = None


@dataclass
class LayerRow:
    name: str
    kind: str
    units: int
    grid: Size
    stride: Size | None
    receptive_field: Size | None
    """Unclipped height and width in input pixels; null where units see the whole input."""
    effective_field: Size
    live: int | None = None
    dead: int | None = None


@dataclass
class ImageRow:
    image: int
    image_id: str
    path: str
    other_paths: list[str]
    label: str | None
    size_bytes: int
    format: str
    mode: str
    size: Size
    seen_box: Box
    """The part of the picture that the network sees, after resize and crop."""
    duplicate_group: str | None
    metadata: dict[str, bool | int | float | str]
    """What else the corpus says of it."""


class ImagePage(Answer):
    rows: list[ImageRow]
    next: str | None


@dataclass
class SkippedRow:
    path: str
    size_bytes: int
    reason: str


class SkippedPage(Answer):
    rows: list[SkippedRow]
    next: str | None


class ActivationMap(Answer):
    """A unit's activation at every location of its grid for one picture."""

    unit: str
    values: list[list[float | None]]
    seen_box: Box
    maximum: float | None
    row: int
    col: int


@dataclass
class AtlasRow:
    name: str
    version: str
    model: str
    images: int
    skipped: int
    labels: int
    layers: int
    units: int
    created: str
    stale_images: int = 0
    """Removed images, shown nowhere, that ranks, percentiles and statistics count until the atlas is compacted."""
    kept: int | None = None
    """First ranks of each unit that the atlas keeps, null if all."""


class AtlasPage(Answer):
    rows: list[AtlasRow]
    next: str | None = None


@dataclass
class VersionRow:
    """A sealed version of an atlas."""

    version: str
    present: bool
    created: str
    images: int
    removed: int
    """Images that were taken out by hand."""
    stale_images: int
    size_bytes: int
    """Of all parts that it names, shared with other versions or not."""
    own_bytes: int
    """Of the parts that no other version names."""


class Version(Answer):
    """What this server is."""

    version: str
    api: str
    format_version: int


class Health(Answer):
    status: str


class Upload(Answer):
    """A picture from outside, kept for a while in memory."""

    id: str
    image_id: str
    size: Size
    seen_box: Box
    expires: str
    in_corpus: bool


class Problem(Answer):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
