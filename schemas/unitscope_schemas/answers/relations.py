"""Answers about what sets units apart and what they share: labels, bands, facets, similar units, compared atlases."""

from dataclasses import dataclass

from unitscope_schemas.answers.patches import PatchRow
from unitscope_schemas.answers.served import Answer
from unitscope_schemas.questions import Likeness, UnitStatus


@dataclass
class SelectivityRow:
    """A label with the measure of how far its images excite a unit more than all other images do."""

    label: str
    images: int
    """Number of images with the label and a finite peak."""
    mean: float
    """Mean of those images' peaks."""
    auc: float
    """Chance that the unit peaks higher on an image with the label than on one without; equal peaks count half."""
    auc_low: float
    auc_high: float
    """Upper end of the 95 % interval of `auc`, whose lower end is `auc_low`."""


class SelectivityPage(Answer):
    """A page of the labels that excite a unit more than others do."""

    unit: str
    images: int
    """Number of images with a finite peak."""
    note: str | None = None
    """What limits the answer: a unit that is not live."""
    rows: list[SelectivityRow]


@dataclass
class SelectiveRow:
    """A label among the first ranks of one unit of an atlas."""

    layer: str
    channel: int
    status: UnitStatus
    label: str
    ranks: int
    """Number of first ranks over which the label is counted."""
    count: int
    share: float
    lift: float
    """Lift of the label: `share` over the label's share of the corpus."""
    lift_low: float
    lift_high: float
    """Upper end of the 95 % interval of the lift, whose lower end is `lift_low` (Wilson 1927)."""


class SelectivePage(Answer):
    """A page of the units that single out a label."""

    label: str
    stale_images: int = 0
    """Number of removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    rows: list[SelectiveRow]


@dataclass
class BandRow(PatchRow):
    """An image from one band of a unit's distribution."""

    band: int
    """Number of the band: 1 for the images with the highest peaks."""
    low: float
    high: float
    """Upper percentile of the band, whose lower one is `low`."""


class BandPage(Answer):
    """A page of patches from each band of a unit's distribution."""

    unit: str
    status: UnitStatus
    note: str | None
    """Reason why there are no patches or unusual ones, if so."""
    stale_images: int = 0
    """Number of removed images, shown nowhere, that these figures still count until the atlas is compacted."""
    rows: list[BandRow]


@dataclass
class FacetRow(PatchRow):
    """An exemplar with the facet of the unit that it belongs to."""

    facet: int
    """Number of the facet: 1 for the one with most exemplars."""
    share: float
    """Share of the unit's exemplars that the facet holds."""


class FacetPage(Answer):
    """A page of a unit's exemplars in facets."""

    unit: str
    status: UnitStatus
    note: str | None
    """Reason why there are no patches or unusual ones, if so."""
    layer: str
    """Layer whose stored embeddings are compared."""
    stale_images: int = 0
    """Number of removed images, shown nowhere, that percentiles still count until the atlas is compacted."""
    exemplars: int
    facets: int
    silhouette: float | None
    """Measure of how clearly the exemplars fall apart, −1 to 1 (Rousseeuw 1987); null where it is not defined."""
    rows: list[FacetRow]


@dataclass
class SimilarRow:
    """A unit that resembles another unit, with the measure of their similarity."""

    rank: int
    layer: str
    channel: int
    similarity: float
    """Similarity of the two units. Coactivation: rank correlation of the peaks, −1 to 1; exemplars: share that both
    have of those that either has; weights: cosine of the incoming weights."""
    status: UnitStatus
    top_label: str | None


class SimilarPage(Answer):
    """A page of the units that are most like a unit."""

    unit: str
    by: Likeness
    layer: str
    """Layer whose units are compared with the unit."""
    note: str
    """Sentence that says what the figures are."""
    rows: list[SimilarRow]


@dataclass
class MatchRow:
    """A unit of the first atlas and the unit of the second that peaks most alike over the images both have."""

    layer: str
    channel: int
    layer_b: str
    match: int | None
    """Channel of the matching unit; null where either unit's peaks are all equal."""
    correlation: float | None
    """Rank correlation (Spearman 1904) of both units' peaks."""
    overlap: float | None
    """Share of the two units' first images that both have."""
    runner_up: int | None
    runner_up_correlation: float | None
    margin: float | None
    """Difference between the correlations of the match and of the runner-up."""
    mutual: bool
    """Whether this unit is its match's best match too."""
    same_correlation: float | None
    same_overlap: float | None
    """Share of first images shared with the unit of the same channel, as `same_correlation` is the correlation with it;
    both are null where the layers differ in their number of units."""


@dataclass
class LayerMatch:
    """A pair of compared layers in figures; medians and means are over units whose peaks are not all equal."""

    layer: str
    layer_b: str
    units: int
    units_b: int
    compared: int
    """Number of units with a match."""
    correlation: float | None
    """Median over units of the correlation with their match."""
    overlap: float | None
    """Mean over units of the overlap with their match."""
    margin: float | None
    """Median over units of the margin."""
    mutual_share: float | None
    same_share: float | None
    """Share of units whose match has the same channel."""
    same_correlation: float | None
    same_overlap: float | None


class ComparedAtlas(Answer):
    """One of the two atlases of a comparison."""

    name: str
    version: str
    model: str
    weights_digest: str
    images: int


class Comparison(Answer):
    """A comparison of two atlases, unit by unit, over the images that both have."""

    id: str
    a: ComparedAtlas
    b: ComparedAtlas
    shared_images: int
    top_images: int
    """Number of first images of a unit that the overlap counts, at most: fewer where the last of them are tied."""
    layers: list[LayerMatch]
    rows: list[MatchRow]


class MatchPage(Comparison):
    """A comparison with some of its rows."""

    next: str | None = None


@dataclass
class ComparisonRow:
    """A stored comparison, as a list of comparisons shows it."""

    id: str
    atlas_b: str
    model_b: str
    version_b: str
    shared_images: int
    layers: int
    units: int


class ComparisonPage(Answer):
    """A page of stored comparisons."""

    rows: list[ComparisonRow]
    next: str | None = None
