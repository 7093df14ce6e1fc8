"""Every question that can be put to an atlas is stated once: its names, types, ranges, defaults and help.

A route takes a model from here as its query, a command as its options, `open_atlas` and `Client` as their arguments. A
further field of a model is there in all four.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Strict

from unitscope_schemas.geometry import Box
from unitscope_schemas.question import (
    LARGEST_DOUBLE,
    LARGEST_FLOAT,
    LONGEST_TEXT,
    Band,
    BandedQuestion,
    BoxField,
    Metavar,
    Question,
    read_numbers,
)

MOST_ROWS = 1000
"""Most rows of one page of an answer."""
MOST_PEAKS = 100
"""Most peaks of one image that an answer lists."""
MOST_BANDS = 100
"""Most bands that a distribution is cut into."""
MOST_PATCHES = 10_000_000
"""Most patches of one answer that comes not page by page."""
MOST_COUNT = 2**31 - 1
"""Greatest number of a unit, a cell, a rank or another thing that an atlas counts."""
MOST_CONDITIONS = 64
"""Most conditions of a question on metadata."""
MOST_WIDTH = 1_000_000
"""Most numbers of a vector."""

Order = Literal["desc", "asc", "random"]
UnitStatus = Literal["live", "rare", "dead", "negative-only", "non-finite"]
Likeness = Literal["coactivation", "exemplars", "weights"]
ProjectionMethod = Literal["deconvnet", "guided", "gradient", "gradient-x-input"]

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Number = Annotated[float, Field(ge=-LARGEST_DOUBLE, le=LARGEST_DOUBLE)]
RowCount = Annotated[int, Field(ge=1, le=MOST_ROWS)]
PageSize = Annotated[
    int | None,
    Field(ge=1, le=MOST_ROWS, description="rows of a page  [default: all; over HTTP what the address says]"),
]
Cursor = Annotated[
    str | None, Field(max_length=500, description="`next` of the page before, which is of the same question")
]
LayerFilter = Annotated[Text | None, Field(description="only units of this layer")]


class PassingQuestion(Question):
    """A question about those images of the corpus that pass a filter."""

    label: Annotated[Text | None, Field(description="only images of this label")] = None
    where: Annotated[
        tuple[Text, ...],
        Field(
            max_length=MOST_CONDITIONS,
            description="only images of this metadata; repeatable: `column=value`, also `!=`, of numbers and dates `<` "
            "`<=` `>` `>=`, `^=` (begins with), `column in a,b`, `not in`, `is null`, `is not null`; `label` and "
            "`path` are columns too",
        ),
        Metavar("CONDITION"),
    ] = ()


class ExemplarQuestion(PassingQuestion):
    """A question for exemplars of a unit in some order."""

    order: Annotated[Order, Field(description="from the highest, from the lowest, or at random")] = "desc"
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1, description="seed of the random order")] = 0
    duplicates: Annotated[
        Literal["collapse", "expand"], Field(description="list the best of each group of near duplicates, or all")
    ] = "collapse"


class TopQuestion(ExemplarQuestion, BandedQuestion):
    """Ask which patches most excite a unit."""

    k: Annotated[int, Field(ge=1, le=MOST_PATCHES, description="how many patches")] = 9
    quantile: Annotated[Band, Field(description="percentile band `a..b`, 0 <= a <= b <= 1, for example 0.4..0.6")] = (
        None
    )
    min_activation: Annotated[
        float | None,
        Field(ge=-LARGEST_FLOAT, le=LARGEST_FLOAT, description="only patches whose activation is at least this one"),
    ] = None
    per_image: Annotated[
        int, Field(ge=1, le=MOST_PEAKS, description="peaks of each image; more than its stored one run the model")
    ] = 1
    cursor: Cursor = None


class TopPageQuestion(TopQuestion):
    """Ask for one page of the patches that most excite a unit, as an answer over HTTP has it."""

    k: Annotated[RowCount, Field(description="how many patches")] = 9


class BandsQuestion(ExemplarQuestion):
    """Ask what a unit responds to over its whole distribution, by patches from each of equal bands."""

    bands: Annotated[int, Field(ge=1, le=MOST_BANDS, description="how many bands, each with equally many images")] = 10
    k: Annotated[int, Field(ge=1, le=100, description="patches of each band")] = 3
    order: Annotated[Order, Field(description="order within each band")] = "random"


class UnitsQuestion(Question):
    """Ask which units a layer has, and for their statistics."""

    sort: Annotated[Text, Field(description="a column; with a leading minus descending")] = "channel"
    status: Annotated[UnitStatus | None, Field(description="only units of this status")] = None
    k: PageSize = None
    cursor: Cursor = None


class TraceQuestion(Question):
    """Ask what the peak of a unit on an image rests on."""

    image: Annotated[str, Field(min_length=1, max_length=4096, description="id, first digits of it, or path")]


class HistogramQuestion(Question):
    """Ask how a unit's peaks are distributed."""

    bins: Annotated[int, Field(ge=1, le=1024, description="how many equal bins")] = 64


class LabelsQuestion(BandedQuestion):
    """Ask which labels are frequent among a unit's first ranks."""

    k: Annotated[RowCount, Field(description="how many labels")] = 20
    ranks: Annotated[
        int | None,
        Field(ge=1, le=MOST_COUNT, description="counted now over so many first ranks  [default: as stored, 100]"),
    ] = None
    quantile: Annotated[Band, Field(description="percentile band `a..b` instead of the first ranks")] = None


class SelectivityQuestion(Question):
    """Ask which labels excite a unit more than the others, over all ranks."""

    k: Annotated[RowCount, Field(description="how many labels")] = 20


class SelectiveQuestion(Question):
    """Ask which units single out a label."""

    label: Annotated[Text, Field(description="the label")]
    layer: LayerFilter = None
    k: PageSize = None


class SimilarQuestion(Question):
    """Ask which units are most like a unit."""

    by: Annotated[
        Likeness, Field(description="rank correlation of peaks, shared exemplars, or cosine of incoming weights")
    ] = "coactivation"
    among: Annotated[
        Text | None, Field(description="the layer whose units are compared  [default: the unit's own]")
    ] = None
    k: Annotated[RowCount, Field(description="how many units")] = 9


class FacetsQuestion(Question):
    """Ask into which groups that look alike a unit's first exemplars fall."""

    k: Annotated[RowCount, Field(description="how many first exemplars")] = 64


class EigenQuestion(Question):
    """Ask for the mean and the principal components of a unit's first patches."""

    k: Annotated[int, Field(ge=2, le=MOST_ROWS, description="how many first patches")] = 64
    components: Annotated[int, Field(ge=1, le=64, description="how many components at most")] = 9
    size: Annotated[
        int | None,
        Field(
            ge=1, le=4096, description="side in input pixels  [default: the effective field, at most half the input]"
        ),
    ] = None


class ExplainQuestion(PassingQuestion):
    """Ask which units a picture excites most, by percentile among the images that pass."""

    layer: LayerFilter = None
    k: Annotated[RowCount, Field(description="how many units")] = 20


class CellQuestion(Question):
    """Ask which units of a layer are most unusually active at one cell of its grid."""

    layer: Annotated[Text, Field(description="the layer")]
    row: Annotated[int, Field(ge=0, le=MOST_COUNT, description="row of the cell, from 0")]
    col: Annotated[int, Field(ge=0, le=MOST_COUNT, description="column of the cell, from 0")]
    k: Annotated[RowCount, Field(description="how many units")] = 20


class MapQuestion(Question):
    """Ask for a unit's activation at every location of its grid."""

    layer: Annotated[Text, Field(description="the unit's layer")]
    unit: Annotated[int, Field(ge=0, le=MOST_COUNT, description="the unit's channel")]


class NeighborsQuestion(PassingQuestion):
    """Ask which patches of the corpus are nearest to a picture, or to a box of it."""

    box: Annotated[
        BoxField,
        Field(description="`top,left,bottom,right` in pixels of the upright picture, half-open  [default: all seen]"),
    ] = None
    layer: Annotated[Text | None, Field(description="must be the layer whose embeddings are indexed")] = None
    k: Annotated[RowCount, Field(description="how many images")] = 9
    exact: Annotated[bool, Field(description="scan all vectors instead of asking the index")] = False

    @property
    def region(self) -> Box | None:
        """Return the box in pixels of the upright original picture, or None for all that the network sees."""
        return None if self.box is None or isinstance(self.box, str) else Box(*self.box)


class NeighborBatchQuestion(PassingQuestion):
    """Ask which patches of the corpus are nearest to each of several vectors and uploads."""

    vectors: Annotated[
        tuple[Annotated[tuple[Annotated[Number, Strict()], ...], Field(max_length=MOST_WIDTH)], ...],
        Field(max_length=100, description="each as wide as the embedded layer has units"),
    ] = ()
    uploads: Annotated[tuple[Text, ...], Field(max_length=100, description="ids of uploads")] = ()
    k: Annotated[RowCount, Field(description="how many images")] = 9
    exact: Annotated[bool, Field(description="scan all vectors instead of asking the index")] = False


class ImagesQuestion(PassingQuestion):
    """Ask which images the corpus has, in order of their ids."""

    conflicts: Annotated[
        bool, Field(description="only images to which files or rows of a list give several labels")
    ] = False
    duplicates: Annotated[bool, Field(description="only images that several files with the same bytes are")] = False
    path: Annotated[Text | None, Field(description="the image with this path below the corpus root")] = None
    k: PageSize = None
    cursor: Cursor = None


class SkippedQuestion(Question):
    """Ask which files of the corpus are no usable image."""

    k: PageSize = None
    cursor: Cursor = None


class ComparisonQuestion(Question):
    """Ask what a stored comparison of two atlases says, unit by unit."""

    layer: LayerFilter = None
    sort: Annotated[Text, Field(description="a column; with a leading minus descending")] = "channel"
    k: PageSize = None
    cursor: Cursor = None


class CorrelateQuestion(Question):
    """Say between the units of which layers co-activation is computed."""

    among: Annotated[Text | None, Field(description="the layer whose units are compared  [default: the same]")] = None


class CompareQuestion(Question):
    """Say which layers of two atlases are compared."""

    layer: Annotated[
        Text | None, Field(description="layer of the first atlas  [default: all names that both have]")
    ] = None
    layer_b: Annotated[Text | None, Field(description="layer of the second atlas  [default: the same name]")] = None


class OptimiseQuestion(Question):
    """Say how an input is made that excites a unit, a class or a direction."""

    top: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_COUNT,
            description="of a layer only the N units whose maximum lies most standard deviations above their mean",
        ),
    ] = None
    recipe: Annotated[Text, Field(description="olah2017, yosinski2015 (also -a, -b, -d), erhan2009 or none")] = (
        "olah2017"
    )
    steps: Annotated[int | None, Field(ge=1, le=100_000, description="steps  [default: the recipe's]")] = None
    objective: Annotated[
        Text,
        Field(
            description="unit (the centre of its map), channel (its mean over the map), class (a logit) or direction; "
            "with a - before it as low as can be"
        ),
    ] = "unit"
    direction: Annotated[
        Annotated[Sequence[Number], Field(max_length=MOST_WIDTH)] | None,
        BeforeValidator(read_numbers),
        Field(description="for the objective direction: a number for each unit, kept as float32"),
    ] = None
    start: Annotated[Text, Field(description="noise, grey, or an image of the corpus by id or path")] = "noise"
    seed: Annotated[int, Field(ge=0, lt=2**63, description="seed of noise and movements")] = 0
    count: Annotated[
        int, Field(ge=1, le=16, description="pictures of each unit, made to differ (Olah et al. 2017)")
    ] = 1


class ProjectQuestion(Question):
    """Say how a unit's first patches are projected back to their pixels."""

    top: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_COUNT,
            description="of a layer only the N units whose maximum lies most standard deviations above their mean",
        ),
    ] = None
    method: Annotated[
        ProjectionMethod | None,
        Field(
            description="how signals go back through rectifiers, or the gradient of the activation, alone or times the "
            "input  [default: deconvnet where max-pooling leaves switches on the way to the layer, else guided]"
        ),
    ] = None
    k: Annotated[RowCount, Field(description="how many patches of each unit")] = 9
