"""The questions of a notebook or program, with arguments as the models of `unitscope_schemas.questions` have them.

`Questions` is what an opened atlas and a client of a server have in common.
"""

from typing import Any, Protocol

import pyarrow as pa

from unitscope.arguments import names_checked
from unitscope.asking import asks, asks_about
from unitscope.pictured import PageFrame, Pictured, Thumbnail, as_page
from unitscope_schemas import questions
from unitscope_schemas.answers.annotations import AnnotateQuestion, AnnotationsQuestion, CollectQuestion
from unitscope_schemas.errors import NotFoundError, PictureError
from unitscope_schemas.units import UnitId

_STRIP, _SHOWN_PX = 6, 160
"""Count of units that stand for an atlas in a notebook, and the size of a patch there."""


class Questions(Protocol):
    """The questions to one atlas, for `unitscope.open_atlas` and `unitscope.Client` alike.

    Every answer is an Arrow table. Units are written `layer:channel`, images by id, path or picture file.
    """

    @names_checked
    def layers(self) -> pa.Table:
        """Return one row per recorded layer."""
        ...

    @asks_about(questions.UnitsQuestion)
    def units(self, layer: str, question: questions.UnitsQuestion) -> pa.Table:
        """Return one row of statistics per unit of a layer."""
        ...

    @asks(questions.ImagesQuestion)
    def images(self, question: questions.ImagesQuestion) -> pa.Table:
        """Return one row per image of the corpus, in order of ids."""
        ...

    @asks(questions.SkippedQuestion)
    def skipped(self, question: questions.SkippedQuestion) -> pa.Table:
        """Return one row per file of the corpus that is no usable image, with the reason."""
        ...

    @asks_about(questions.TopQuestion)
    def top(self, unit: str, question: questions.TopQuestion) -> pa.Table:
        """Return the patches that most excite a unit.

        More than one peak `per_image` are local maxima of its map, which the model computes again.

        atlas.top("_blocks.15:130", k=50, label="cats", quantile="0.5..0.9")
        """
        ...

    @asks_about(questions.BandsQuestion)
    def bands(self, unit: str, question: questions.BandsQuestion) -> pa.Table:
        """Return some patches from each of equal bands of a unit's distribution, the highest band first."""
        ...

    @asks_about(questions.HistogramQuestion)
    def histogram(self, unit: str, question: questions.HistogramQuestion) -> pa.Table:
        """Return one row per bin of the distribution of a unit's peaks: its two edges and the count of images."""
        ...

    @asks_about(questions.LabelsQuestion)
    def labels(self, unit: str, question: questions.LabelsQuestion) -> pa.Table:
        """Return the labels among a unit's first ranks, with lift and its interval."""
        ...

    @asks_about(questions.SelectivityQuestion)
    def selectivity(self, unit: str, question: questions.SelectivityQuestion) -> pa.Table:
        """Return labels by the chance, over all ranks, that their images excite the unit more than others do."""
        ...

    @asks(questions.SelectiveQuestion)
    def selective(self, question: questions.SelectiveQuestion) -> pa.Table:
        """Return the units whose first ranks hold a label most above its share of the corpus."""
        ...

    @asks_about(questions.FacetsQuestion)
    def facets(self, unit: str, question: questions.FacetsQuestion) -> pa.Table:
        """Return a unit's first exemplars in groups that look alike where it peaks."""
        ...

    @asks_about(questions.SimilarQuestion)
    def similar(self, unit: str, question: questions.SimilarQuestion) -> pa.Table:
        """Return the units of a layer, its own unless another is named, that are most like a unit.

        Likeness is by `coactivation` once `correlate` has computed it for the layers, by `exemplars` or `weights` at
        once.
        """
        ...

    @asks_about(questions.CorrelateQuestion)
    def correlate(self, layer: str, question: questions.CorrelateQuestion) -> None:
        """Compute and store the co-activation of two layers' units, or of one layer's; once for each version."""
        ...

    @asks_about(questions.CompareQuestion)
    def compare(self, other: str, question: questions.CompareQuestion) -> pa.Table:
        """Return for each unit the best match in another atlas of the same pictures; computed once and stored."""
        ...

    @names_checked
    def comparisons(self) -> pa.Table:
        """Return the stored comparisons with other atlases."""
        ...

    @asks_about(questions.ComparisonQuestion)
    def comparison(self, identifier: str, question: questions.ComparisonQuestion) -> pa.Table:
        """Return a stored comparison, unit by unit, of one layer or all."""
        ...

    @asks_about(questions.ExplainQuestion)
    def explain(self, image: str, question: questions.ExplainQuestion) -> pa.Table:
        """Return the units that an image excites most unusually, by percentile among the images that pass."""
        ...

    @asks_about(questions.TraceQuestion)
    def trace(self, unit: str, question: questions.TraceQuestion) -> pa.Table:
        """Return the links that the peak of a unit on an image hangs by, each looked at now, the last recorded anew.

        atlas.trace("_blocks.15:130", image="cats/tom.jpg")
        """
        ...

    @names_checked
    def digests(self, prefix: str) -> pa.Table:
        """Return what has a SHA-256 that begins so, and which answers rest on it."""
        ...

    @asks_about(questions.NeighborsQuestion)
    def neighbors(self, image: str, question: questions.NeighborsQuestion) -> pa.Table:
        """Return the images with the patch most similar to a box of an image.

        atlas.neighbors("cats/tom.jpg", box=(40, 60, 180, 200))
        """
        ...

    @asks_about(questions.OptimiseQuestion)
    def optimise(self, unit: str, question: questions.OptimiseQuestion) -> pa.Table:
        """Return pictures optimised for a unit (of a layer, for all live ones), made now unless they are stored.

        With the objective `class` the unit is the index or label of a class, with `direction` the layer whose units
        the numbers are for.
        """
        ...

    @asks_about(questions.ProjectQuestion)
    def project(self, unit: str, question: questions.ProjectQuestion) -> pa.Table:
        """Return the projections of a unit's first patches, made now unless they are stored."""
        ...

    @names_checked
    def visualisations(self, unit: str) -> pa.Table:
        """Return the stored pictures of a unit or direction, each with the activation it reaches beside the corpus."""
        ...

    @names_checked
    def visualisation(self, unit: str, name: str) -> bytes:
        """Return the PNG of a stored picture of a unit by the id in its row."""
        ...

    @names_checked
    def filters(self, layer: str = "first") -> pa.Table:
        """Return one row for each filter of a layer of the model; `first` is the first layer with weights."""
        ...

    @asks_about(questions.EigenQuestion)
    def eigen(self, unit: str, question: questions.EigenQuestion) -> pa.Table:
        """Return one row for the mean (component 0) and each principal component of a unit's patches."""
        ...

    @asks(AnnotationsQuestion)
    def annotations(self, question: AnnotationsQuestion) -> pa.Table:
        """Return what people wrote about units and images, the last that was written first."""
        ...

    @asks_about(AnnotateQuestion)
    def annotate(self, subject: str, question: AnnotateQuestion) -> pa.Table:
        """Write a name, a note or tags of a unit or an image, and return what is said of it now.

        atlas.annotate("_blocks.15:130", name="cat faces", tags=["animal"])
        """
        ...

    @names_checked
    def collections(self) -> pa.Table:
        """Return the collections of units and images."""
        ...

    @names_checked
    def collection(self, name: str) -> pa.Table:
        """Return the units and images of a collection, in its order."""
        ...

    @asks_about(CollectQuestion)
    def collect(self, collection: str, question: CollectQuestion) -> pa.Table:
        """Change a collection, which the first change makes, and return its items; none once it is deleted.

        atlas.collect("curves", subjects=["_blocks.5:3", "_blocks.5:9"], note="detects curves")
        """
        ...

    @names_checked
    def patch(self, unit: str, image: str, size: int | None = None) -> bytes:
        """Return the patch of an image where a unit peaks, as a JPEG whose longer side has `size` pixels.

        Its box is the theoretical receptive field, or the effective one where the unit sees the whole input. Raises
        NotFoundError where the picture is gone.
        """
        ...

    @names_checked
    def page(self, unit: str) -> str:
        """Return the address of a unit's page at the server; raises UsageError for an atlas that is opened here."""
        ...

    @names_checked
    def unit(self, unit: str) -> "Unit":
        """Return a unit as an object that a notebook shows with its patches.

        atlas.unit("_blocks.15:130").patches(k=20, label="cats")
        """
        return Unit(self, unit)

    def _repr_html_(self) -> str:
        layers = self.layers().to_pylist()
        line = ", ".join(f"{row['name']} ({row['units']} units)" for row in layers)
        last = layers[-1]["name"]
        first = self.units(last, sort="-maximum", status="live", k=_STRIP).to_pylist()
        tiles = [self.unit(f"{last}:{row['channel']}").tile() for row in first]
        return as_page(repr(self)[1:-1], [line], tiles)


class Unit:
    """A unit of an atlas: a notebook shows its patches, labels and optimised inputs."""

    def __init__(self, atlas: Questions, name: str) -> None:
        self._atlas = atlas
        self.id = UnitId.parse(name)

    def patches(self, k: int = 9, **filters: Any) -> Pictured:
        """Return the patches that most excite the unit, as `Questions.top` does, with their pictures."""
        table = self._atlas.top(str(self.id), k=k, **filters)
        return Pictured(f"{self.id}: patches", table, self._patch)

    def similar(self, k: int = 9, by: questions.Likeness = "exemplars", among: str | None = None) -> Pictured:
        """Return the units that are most like this one, as `Questions.similar` does, each with its first patch."""
        table = self._atlas.similar(str(self.id), by=by, among=among, k=k)
        return Pictured(f"{self.id}: similar units", table, self._kin)

    @property
    def optimised(self) -> Pictured:
        """The inputs that were optimised for the unit, and its projections, which are stored; `optimise` makes more."""
        table = self._atlas.visualisations(str(self.id))
        return Pictured(f"{self.id}: made for it", table, self._made)

    def embed(self, height_px: int = 420) -> PageFrame:
        """Return a frame with the unit's patches, as the server of a `Client` shows them, for notebooks and sites.

        The server lets others frame its pages where anyone may read. Raises UsageError for an atlas that is opened
        here.
        """
        return PageFrame(f"{self._atlas.page(str(self.id))}?embed=1", str(self.id), height_px)

    def tile(self) -> Thumbnail:
        """Return the unit's first patch as a picture."""
        first = self.patches(k=1)
        return Thumbnail(first.tiles[0].picture if len(first) else None, str(self.id))

    def _patch(self, row: dict[str, Any]) -> Thumbnail:
        caption = f"{row['activation']:.4g}"
        try:
            picture = self._atlas.patch(str(self.id), image=row["image_id"], size=_SHOWN_PX)
        except (NotFoundError, PictureError) as error:
            return Thumbnail(None, f"{caption}: {error}", row["path"])
        return Thumbnail(picture, caption, row["path"])

    def _kin(self, row: dict[str, Any]) -> Thumbnail:
        other = Unit(self._atlas, f"{row['layer']}:{row['channel']}").tile()
        return Thumbnail(other.picture, f"{other.caption} {row['similarity']:.2f}")

    def _made(self, row: dict[str, Any]) -> Thumbnail:
        reached = "" if row["activation"] is None else f" {row['activation']:.4g}"
        picture = self._atlas.visualisation(str(self.id), row["id"])
        return Thumbnail(picture, f"{row['method']}{reached}", row["objective"])

    def __repr__(self) -> str:
        return f"<unit {self.id} of {self._atlas!r}>"

    def _repr_html_(self) -> str:
        labels = [row for row in self._atlas.labels(str(self.id)).to_pylist() if row["lift_low"] > 1][:3]
        lines = [f"{row['label']}: {row['count']} of its first, {row['lift']:.3g} times its share" for row in labels]
        lines = lines or ["no label stands out among its first"]
        made = self.optimised.tiles[:3]
        return as_page(str(self.id), lines, [*self.patches().tiles, *made])
