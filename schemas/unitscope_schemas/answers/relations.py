"""What sets units apart and what they share: labels, bands, facets, similar units, compared atlases; rows and pages."""

from dataclasses import dataclass

from unitscope_schemas.answers.patches import PatchRow
from unitscope_schemas.answers.served import Answer
from unitscope_schemas.questions import Likeness, UnitStatus


@dataclass
class SelectivityRow:
    """How far one label's images excite a unit more than all other images do."""

    label: str
    images: int
    """With the label and a finite peak."""
    mean: float
    """Of their peaks."""
    auc: float
    """Chance that the unit peaks higher on an image with the label than on one without; equal peaks count half."""
    auc_low: float
    auc_high: float
    """Both ends of its 95 % interval."""


class SelectivityPage(Answer):
    unit: str
    images: int
    """Images with a finite peak."""
    rows: list[SelectivityRow]


@dataclass
class SelectiveRow:
    """One label among the first ranks of one unit."""

    layer: str
    channel: int
    status: UnitStatus
    label: str
    ranks: int
    """Over how many first ranks the label is counted."""
    count: int
    share: float
    lift: float
    """The share over the label's share of the corpus."""
    lift_low: float
    lift_high: float
    """Both ends of its 95 % interval (Wilson 1927)."""


class SelectivePage(Answer):
    label: str
    stale_images: int = 0
    """Removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    rows: list[SelectiveRow]


@dataclass
class BandRow(PatchRow):
    """An image from one band of a unit's distribution."""

    band: int
    """1 for the images with the highest peaks."""
    low: float
    high: float
    """Percentiles between which the band lies."""


class BandPage(Answer):
    unit: str
    status: UnitStatus
    note: str | None
    """Why there are no or unusual patches, if so."""
    stale_images: int = 0
    """Removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    rows: list[BandRow]


@dataclass
class FacetRow(PatchRow):
    """An exemplar with the facet of the unit that it belongs to."""

    facet: int
    """1 for the facet with most exemplars."""
    share: float
    """Of the unit's exemplars that the facet holds."""


class FacetPage(Answer):
    unit: str
    status: UnitStatus
    note: str | None
    """Why there are no or unusual patches, if so."""
    layer: str
    """Whose stored embeddings are compared."""
    stale_images: int = 0
    """Removed images, shown nowhere, that percentiles still count until the atlas is compacted."""
    exemplars: int
    facets: int
    silhouette: float | None
    """How clearly the exemplars fall apart, −1 to 1 (Rousseeuw 1987); null where nothing can be told."""
    rows: list[FacetRow]


@dataclass
class SimilarRow:
    rank: int
    layer: str
    channel: int
    similarity: float
    """Coactivation: rank correlation of the peaks, −1 to 1; exemplars: share that both have of those that either has;
    weights: cosine of the incoming weights."""
    status: UnitStatus
    top_label: str | None


class SimilarPage(Answer):
    unit: str
    by: Likeness
    layer: str
    """Whose units are compared with it."""
    note: str
    """What the figures are."""
    rows: list[SimilarRow]


@dataclass
class MatchRow:
    """A unit of the first atlas and the unit of the second that peaks most alike over the images both have."""

    layer: str
    channel: int
    layer_b: str
    match: int | None
    """Null where either unit's peaks are all equal."""
    correlation: float | None
    """Rank correlation (Spearman 1904) of both units' peaks."""
    overlap: float | None
    """Share of their first images that both have."""
    runner_up: int | None
    runner_up_correlation: float | None
    margin: float | None
    """How far the match is ahead of the runner-up."""
    mutual: bool
    """Whether this unit is its match's best match too."""
    same_correlation: float | None
    same_overlap: float | None
    """With the unit of the same channel, where both layers have as many units."""


@dataclass
class LayerMatch:
    """A pair of layers in figures; medians and means are over units whose peaks are not all equal."""

    layer: str
    layer_b: str
    units: int
    units_b: int
    compared: int
    """Units with a match."""
    correlation: float | None
    """Median over units of the correlation with their match."""
    overlap: float | None
    """Mean over units of the overlap with their match."""
    margin: float | None
    """Median."""
    mutual_share: float | None
    same_share: float | None
    """Share of units whose match has the same channel."""
    same_correlation: float | None
    same_overlap: float | None


class ComparedAtlas(Answer):
    """One side of a comparison."""

    name: str
    version: str
    model: str
    weights_digest: str
    images: int


class Comparison(Answer):
    """Two atlases, unit by unit, over the images that both have."""

    id: str
    a: ComparedAtlas
    b: ComparedAtlas
    shared_images: int
    top_images: int
    """How many first images of a unit the overlap counts, at most: fewer where the last of them are tied."""
    layers: list[LayerMatch]
    rows: list[MatchRow]


class MatchPage(Comparison):
    """A comparison with some of its rows."""

    next: str | None = None


@dataclass
class ComparisonRow:
    """A stored comparison."""

    id: str
    atlas_b: str
    model_b: str
    version_b: str
    shared_images: int
    layers: int
    units: int


class ComparisonPage(Answer):
    rows: list[ComparisonRow]
    next: str | None = None
