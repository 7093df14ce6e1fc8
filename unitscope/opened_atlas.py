"""An opened atlas answers a notebook or program: every answer is an Arrow table."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from unitscope.arguments import names_checked
from unitscope.asking import asks, asks_about, bins_table, check_size, local_author
from unitscope.questions import Questions
from unitscope_schemas import questions
from unitscope_schemas.answers.annotations import (
    AnnotateQuestion,
    AnnotationRow,
    AnnotationsQuestion,
    CollectionItem,
    CollectionRow,
    CollectQuestion,
)
from unitscope_schemas.answers.patches import ExplainRow, LabelRow, NeighborRow, PatchRow, UnitRow
from unitscope_schemas.answers.provenance import DigestRow, TraceRow
from unitscope_schemas.answers.relations import (
    BandRow,
    ComparisonRow,
    FacetRow,
    MatchRow,
    SelectiveRow,
    SelectivityRow,
    SimilarRow,
)
from unitscope_schemas.answers.served import ImageRow, LayerRow, SkippedRow
from unitscope_schemas.answers.visuals import EigenRow, FilterRow, VisualRow
from unitscope_schemas.errors import UsageError
from unitscope_schemas.formats import as_table
from unitscope_schemas.progress import Progress
from unitscope_schemas.units import UnitId, parse_target
from unitscope_services.atlas.crops import cut, encoded, picture, read_image
from unitscope_services.figures import conv_filters, eigen
from unitscope_services.queries import compare, exemplars, images, labels, local_maxima, units, visuals
from unitscope_services.queries.annotations import annotations, collections
from unitscope_services.queries.facets import facets
from unitscope_services.queries.provenance.digests import digests
from unitscope_services.queries.provenance.trace import trace
from unitscope_services.queries.session import Session
from unitscope_services.queries.similar import similar

if TYPE_CHECKING:
    from unitscope_services.figures.eigen import EigenPatches


class OpenedAtlas(Questions):
    """The questions to an atlas that lies on this machine or in an object store; made by `unitscope.open_atlas`."""

    @names_checked
    def __init__(
        self,
        path: str,
        trust_code: bool = False,
        version: str | None = None,
        workers: int | None = None,
        corpus: str | None = None,
        annotations: str | None = None,
    ) -> None:
        folder = None if annotations is None else Path(annotations)
        self._session = Session(path, trust_code=trust_code, version=version, corpus=corpus, annotations=folder)
        self._workers = workers
        self.manifest = self._session.atlas.manifest

    @names_checked
    def layers(self) -> pa.Table:
        return as_table(self._session.atlas.layers(), LayerRow)

    @asks_about(questions.UnitsQuestion)
    def units(self, layer: str, question: questions.UnitsQuestion) -> pa.Table:
        return as_table(units.unit_page(self._session.atlas, layer, question).rows, UnitRow)

    @asks(questions.ImagesQuestion)
    def images(self, question: questions.ImagesQuestion) -> pa.Table:
        return as_table(images.image_page(self._session.atlas, question).rows, ImageRow)

    @asks(questions.SkippedQuestion)
    def skipped(self, question: questions.SkippedQuestion) -> pa.Table:
        return as_table(images.skipped_page(self._session.atlas, question).rows, SkippedRow)

    @asks_about(questions.TopQuestion)
    def top(self, unit: str, question: questions.TopQuestion) -> pa.Table:
        return as_table(local_maxima.top(self._session, UnitId.parse(unit), question).rows, PatchRow)

    @asks_about(questions.BandsQuestion)
    def bands(self, unit: str, question: questions.BandsQuestion) -> pa.Table:
        return as_table(exemplars.bands(self._session.atlas, UnitId.parse(unit), question).rows, BandRow)

    @asks_about(questions.HistogramQuestion)
    def histogram(self, unit: str, question: questions.HistogramQuestion) -> pa.Table:
        histogram = units.histogram(self._session.atlas, UnitId.parse(unit), question)
        return bins_table(histogram.edges, histogram.counts)

    @asks_about(questions.LabelsQuestion)
    def labels(self, unit: str, question: questions.LabelsQuestion) -> pa.Table:
        return as_table(labels.labels(self._session.atlas, UnitId.parse(unit), question).rows, LabelRow)

    @asks_about(questions.SelectivityQuestion)
    def selectivity(self, unit: str, question: questions.SelectivityQuestion) -> pa.Table:
        return as_table(labels.selectivity(self._session.atlas, UnitId.parse(unit), question).rows, SelectivityRow)

    @asks(questions.SelectiveQuestion)
    def selective(self, question: questions.SelectiveQuestion) -> pa.Table:
        return as_table(labels.selective_units(self._session.atlas, question).rows, SelectiveRow)

    @asks_about(questions.FacetsQuestion)
    def facets(self, unit: str, question: questions.FacetsQuestion) -> pa.Table:
        return as_table(facets(self._session, UnitId.parse(unit), question).rows, FacetRow)

    @asks_about(questions.SimilarQuestion)
    def similar(self, unit: str, question: questions.SimilarQuestion) -> pa.Table:
        return as_table(similar(self._session, UnitId.parse(unit), question).rows, SimilarRow)

    @asks_about(questions.CorrelateQuestion)
    def correlate(self, layer: str, question: questions.CorrelateQuestion) -> None:
        from unitscope_pipelines.derived.coactivation import LayerPair, SealedAtlas, find_coactivation
        from unitscope_pipelines.runs.coactivation import OnCluster

        sealed = SealedAtlas(self._session.atlas.store, self.manifest)
        pair = LayerPair(layer, question.among or layer)
        find_coactivation(sealed, sealed, [pair], OnCluster(_keep_quiet, self._workers))

    @asks_about(questions.CompareQuestion)
    def compare(self, other: str, question: questions.CompareQuestion) -> pa.Table:
        from unitscope_pipelines.derived.coactivation import SealedAtlas
        from unitscope_pipelines.derived.compare import compare
        from unitscope_pipelines.runs.coactivation import OnCluster

        sealed, crew = SealedAtlas(self._session.atlas.store, self.manifest), OnCluster(_keep_quiet, self._workers)
        comparison = compare(sealed, SealedAtlas.present(other), crew, (question.layer, question.layer_b))
        return as_table(comparison.rows, MatchRow)

    @names_checked
    def comparisons(self) -> pa.Table:
        return as_table(compare.comparisons(self._session.atlas).rows, ComparisonRow)

    @asks_about(questions.ComparisonQuestion)
    def comparison(self, identifier: str, question: questions.ComparisonQuestion) -> pa.Table:
        return as_table(compare.comparison(self._session.atlas, identifier, question).rows, MatchRow)

    @asks_about(questions.ExplainQuestion)
    def explain(self, image: str, question: questions.ExplainQuestion) -> pa.Table:
        return as_table(self._session.explain(self._session.find(image), question).rows, ExplainRow)

    @asks_about(questions.TraceQuestion)
    def trace(self, unit: str, question: questions.TraceQuestion) -> pa.Table:
        return as_table(trace(self._session, UnitId.parse(unit), question).rows, TraceRow)

    @names_checked
    def digests(self, prefix: str) -> pa.Table:
        return as_table(digests(self._session.atlas, prefix).rows, DigestRow)

    @asks_about(questions.NeighborsQuestion)
    def neighbors(self, image: str, question: questions.NeighborsQuestion) -> pa.Table:
        return as_table(self._session.neighbors(self._session.find(image), question).rows, NeighborRow)

    @asks_about(questions.OptimiseQuestion)
    def optimise(self, unit: str, question: questions.OptimiseQuestion) -> pa.Table:
        from unitscope_services.figures.optimise import optimise

        return as_table(list(optimise(self._session, [unit], question)), VisualRow)

    @asks_about(questions.ProjectQuestion)
    def project(self, unit: str, question: questions.ProjectQuestion) -> pa.Table:
        from unitscope_services.figures.project import projections

        return as_table(projections(self._session, UnitId.parse(unit), question).rows, VisualRow)

    @names_checked
    def visualisations(self, unit: str) -> pa.Table:
        return as_table(visuals.visualisations(self._session.atlas, parse_target(unit)).rows, VisualRow)

    @names_checked
    def visualisation(self, unit: str, name: str) -> bytes:
        return visuals.visual_picture(self._session.atlas, parse_target(unit), name)[1]

    @asks(AnnotationsQuestion)
    def annotations(self, question: AnnotationsQuestion) -> pa.Table:
        return as_table(annotations.annotation_page(self._session, question).rows, AnnotationRow)

    @asks_about(AnnotateQuestion)
    def annotate(self, subject: str, question: AnnotateQuestion) -> pa.Table:
        page = annotations.annotate(self._session, subject, question, local_author())
        return as_table(page.rows, AnnotationRow)

    @names_checked
    def collections(self) -> pa.Table:
        return as_table(collections.collection_page(self._session).rows, CollectionRow)

    @names_checked
    def collection(self, name: str) -> pa.Table:
        return as_table(collections.collection(self._session, name).rows, CollectionItem)

    @asks_about(CollectQuestion)
    def collect(self, collection: str, question: CollectQuestion) -> pa.Table:
        after = collections.collect(self._session, collection, question, local_author())
        return as_table([] if after is None else after.rows, CollectionItem)

    @names_checked
    def page(self, unit: str) -> str:
        raise UsageError(f"{unit} has no page, as this atlas is opened here: serve it, and ask unitscope.Client(url)")

    @names_checked
    def patch(self, unit: str, image: str, size: int | None = None) -> bytes:
        check_size(size)
        atlas, one = self._session.atlas, UnitId.parse(unit)
        found = self._session.find(image).image
        if found is None:
            raise UsageError(f"{image!r} is no image of the corpus, so no peak of it is stored; explain asks about it")
        box = units.peak_box(atlas, one, found)
        return encoded(cut(picture(atlas, read_image(atlas, found)), box, size), "jpg")

    @names_checked
    def filters(self, layer: str = "first") -> pa.Table:
        return as_table(conv_filters.filter_page(self._session, layer).rows, FilterRow)

    @asks_about(questions.EigenQuestion)
    def eigen(self, unit: str, question: questions.EigenQuestion) -> pa.Table:
        return as_table(eigen.eigen_page(self._session, UnitId.parse(unit), question).rows, EigenRow)

    @asks_about(questions.EigenQuestion)
    def eigen_patches(self, unit: str, question: questions.EigenQuestion) -> "EigenPatches":
        """Return mean and principal components of a unit's patches as arrays, aligned at their peaks."""
        return eigen.eigen_patches(self._session, UnitId.parse(unit), question)

    def __repr__(self) -> str:
        summary = self._session.atlas.summary()
        return f"<atlas {summary.name}: {summary.images} images × {summary.units} units of {summary.model}>"


def _keep_quiet(_: Progress) -> None:
    """Ignore all progress: who asks from a program waits for the answer."""
