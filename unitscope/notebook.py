"""An atlas in a notebook: every answer an Arrow table."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from unitscope_schemas.answers.patches import ExplainRow, LabelRow, NeighborRow, Order, PatchQuery, PatchRow, UnitRow
from unitscope_schemas.answers.relations import (
    BandRow,
    ComparisonRow,
    FacetRow,
    Likeness,
    MatchRow,
    SelectiveRow,
    SelectivityRow,
    SimilarRow,
)
from unitscope_schemas.answers.served import LayerRow
from unitscope_schemas.answers.visuals import FilterRow, OptimiseQuery, VisualRow
from unitscope_schemas.formats import as_table
from unitscope_schemas.geometry import Box, Size
from unitscope_schemas.units import UnitId, parse_target
from unitscope_services.atlas.image_filter import ImageFilter
from unitscope_services.figures.conv_filters import filter_page
from unitscope_services.figures.eigen import EigenPatches, eigen_patches
from unitscope_services.figures.optimise import optimise
from unitscope_services.figures.project import projections
from unitscope_services.queries import compare, labels
from unitscope_services.queries.bands import bands as cut_bands
from unitscope_services.queries.facets import facets
from unitscope_services.queries.local_maxima import several_patches
from unitscope_services.queries.session import Session
from unitscope_services.queries.similar import similar
from unitscope_services.queries.units import unit_page
from unitscope_services.queries.visuals import visual_picture, visualisations


class Notebook:
    """Questions to an opened atlas. Units are written `layer:channel`; images by id, path or picture file."""

    def __init__(self, path: str, trust_code: bool = False, version: str | None = None) -> None:
        self._asked = Session(path, trust_code=trust_code, version=version)
        self.manifest = self._asked.atlas.manifest

    def layers(self) -> pa.Table:
        """One row per recorded layer."""
        return as_table(self._asked.atlas.layers(), LayerRow)

    def units(self, layer: str, sort: str = "channel") -> pa.Table:
        """One row of statistics per unit of a layer."""
        count = self._asked.atlas.layer(layer).spec.units
        return as_table(unit_page(self._asked.atlas, layer, sort, limit=count).rows, UnitRow)

    def top(self, unit: str, k: int = 9, per_image: int = 1, **query: Any) -> pa.Table:
        """The patches that most excite a unit; further filters as in `schemas.answers.PatchQuery`.

        More than one peak `per_image` are local maxima of its map, which the model computes again.
        """
        page = several_patches(self._asked, UnitId.parse(unit), PatchQuery(limit=k, **query), per_image)
        return as_table(page.rows, PatchRow)

    def labels(self, unit: str, ranks: int | None = None) -> pa.Table:
        """Labels among a unit's first ranks, as stored or counted over so many, with lift and its interval."""
        return as_table(labels.labels(self._asked.atlas, UnitId.parse(unit), ranks=ranks).rows, LabelRow)

    def selectivity(self, unit: str) -> pa.Table:
        """Labels by the chance, over all ranks, that their images excite the unit more than others do."""
        return as_table(labels.selectivity(self._asked.atlas, UnitId.parse(unit)).rows, SelectivityRow)

    def selective(self, label: str, layer: str | None = None, k: int = 100) -> pa.Table:
        """The units whose first ranks hold a label most above its share of the corpus."""
        return as_table(labels.selective_units(self._asked.atlas, label, layer, k).rows, SelectiveRow)

    def bands(self, unit: str, bands: int = 10, k: int = 3, order: Order = "random", **query: Any) -> pa.Table:
        """Some patches from each of equal bands of the unit's distribution, the highest first."""
        session = PatchQuery(limit=k, order=order, **query)
        return as_table(cut_bands(self._asked.atlas, UnitId.parse(unit), bands, session).rows, BandRow)

    def facets(self, unit: str) -> pa.Table:
        """The unit's first exemplars in groups that look alike where it peaks."""
        return as_table(facets(self._asked, UnitId.parse(unit)).rows, FacetRow)

    def similar(self, unit: str, by: Likeness = "coactivation", among: str | None = None, k: int = 9) -> pa.Table:
        """The units of a layer, its own unless another is named, that are most like a unit.

        By `coactivation` once `correlate` has computed it for the layers, by `exemplars` or `weights` at once.
        """
        return as_table(similar(self._asked, UnitId.parse(unit), by, among, k).rows, SimilarRow)

    def correlate(self, layer: str, among: str | None = None, workers: int | None = None) -> None:
        """Compute and store the co-activation of two layers' units, or of one layer's; once for each version."""
        from unitscope_pipelines.derived.coactivation import LayerPair, SealedAtlas, find_coactivation
        from unitscope_pipelines.runs.coactivation import OnCluster

        sealed = SealedAtlas(self._asked.atlas.store, self.manifest)
        find_coactivation(sealed, sealed, [LayerPair(layer, among or layer)], OnCluster(lambda _: None, workers))

    def compare(
        self, other: str, layer: str | None = None, layer_b: str | None = None, workers: int | None = None
    ) -> pa.Table:
        """Unit by unit the best match in another atlas of the same pictures; computed once and stored in this one."""
        from unitscope_pipelines.derived.coactivation import SealedAtlas
        from unitscope_pipelines.derived.compare import compare
        from unitscope_pipelines.runs.coactivation import OnCluster

        own, crew = SealedAtlas(self._asked.atlas.store, self.manifest), OnCluster(lambda _: None, workers)
        found = compare(own, SealedAtlas.present(other), crew, (layer, layer_b))
        return as_table(found.rows, MatchRow)

    def comparisons(self) -> pa.Table:
        """The stored comparisons with other atlases."""
        return as_table(compare.comparisons(self._asked.atlas).rows, ComparisonRow)

    def comparison(self, identifier: str, layer: str | None = None) -> pa.Table:
        """A stored comparison, unit by unit, of one layer or all."""
        found = compare.comparison(self._asked.atlas, identifier, layer, limit=None)
        return as_table(found.rows, MatchRow)

    def explain(self, image: str, layer: str | None = None, k: int = 20, **passing: Any) -> pa.Table:
        """The units that an image excites most unusually, by percentile.

        `label` and `where`, a tuple of conditions, choose among which images, as in `top`.
        """
        return as_table(self._asked.explain(self._asked.find(image), layer, k, ImageFilter(**passing)).rows, ExplainRow)

    def neighbors(
        self,
        image: str,
        box: tuple[int, int, int, int] | None = None,
        k: int = 9,
        exact: bool = False,
        **passing: Any,
    ) -> pa.Table:
        """The images with the patch most similar to a box (top, left, bottom, right) of an image.

        `label` and `where`, a tuple of conditions, choose among the images as in `top`.
        """
        wanted, subject = None if box is None else Box(*box), self._asked.find(image)
        return as_table(self._asked.neighbors(subject, wanted, k, exact, ImageFilter(**passing)).rows, NeighborRow)

    def optimise(
        self, unit: str, recipe: str = "olah2017", direction: Sequence[float] | None = None, **how: Any
    ) -> pa.Table:
        """Pictures optimised for a unit (of a layer, for all live ones), made here unless they are stored.

        `how` as in `schemas.visuals.OptimiseQuery`: steps, objective, start, seed, count, top. With the objective
        "class" `unit` is the index or label of a class, with "direction" the layer whose units the numbers are for.
        """
        vector = None if direction is None else tuple(map(float, direction))
        query = OptimiseQuery(units=(unit,), recipe=recipe, direction=vector, **how)
        return as_table(list(optimise(self._asked, query)), VisualRow)

    def visualisations(self, unit: str) -> pa.Table:
        """The stored pictures of a unit or direction, each with the activation it reaches beside the corpus."""
        return as_table(visualisations(self._asked.atlas, parse_target(unit)).rows, VisualRow)

    def visualisation(self, unit: str, name: str) -> bytes:
        """The PNG of a stored picture by its id."""
        return visual_picture(self._asked.atlas, parse_target(unit), name)[1]

    def project(self, unit: str, method: str = "deconvnet", k: int = 9) -> pa.Table:
        """The projections of a unit's first patches, by `deconvnet`, `guided` or `gradient`; made once, then kept."""
        return as_table(projections(self._asked, UnitId.parse(unit), method, k).rows, VisualRow)

    def filters(self, layer: str = "first") -> pa.Table:
        """One row for each filter of a layer of the model; `first` is the first layer with weights."""
        return as_table(filter_page(self._asked, layer).rows, FilterRow)

    def eigen(self, unit: str, k: int = 64, count: int = 9, size: tuple[int, int] | None = None) -> EigenPatches:
        """Mean and principal components of a unit's patches, aligned at their peaks; `size` in input pixels."""
        return eigen_patches(self._asked, UnitId.parse(unit), k, count, None if size is None else Size(*size))

    def __repr__(self) -> str:
        summary = self._asked.atlas.summary()
        return f"<atlas {summary.name}: {summary.images} images × {summary.units} units of {summary.model}>"
