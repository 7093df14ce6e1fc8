"""An atlas in a notebook: every answer an Arrow table."""

from typing import Any

import pyarrow as pa

from schemas.geometry import Box, Size
from schemas.units import UnitId
from schemas.visuals import FilterRow, OptimiseQuery, VisualRow
from schemas.web import ExplainRow, LabelRow, LayerRow, NeighborRow, PatchQuery, PatchRow, UnitRow
from services.eigen import EigenPatches, eigen_patches
from services.filters import Filter
from services.formats import as_table
from services.optimising import optimise
from services.projections import projections
from services.subjects import Asked
from services.units import labels, patches, unit_page
from services.visualisations import visual_picture, visualisations
from services.weights import filter_page


class Notebook:
    """Questions to an opened atlas. Units are written `layer:channel`; images by id, path or picture file."""

    def __init__(self, path: str, trust_code: bool = False, version: str | None = None) -> None:
        self._asked = Asked(path, trust_code=trust_code, version=version)
        self.manifest = self._asked.atlas.manifest

    def layers(self) -> pa.Table:
        """One row per recorded layer."""
        return as_table(self._asked.atlas.layers(), LayerRow)

    def units(self, layer: str, sort: str = "channel") -> pa.Table:
        """One row of statistics per unit of a layer."""
        count = self._asked.atlas.layer(layer).spec.units
        return as_table(unit_page(self._asked.atlas, layer, sort, limit=count).rows, UnitRow)

    def top(self, unit: str, k: int = 9, **query: Any) -> pa.Table:
        """The patches that most excite a unit; further filters as in `schemas.web.PatchQuery`."""
        page = patches(self._asked.atlas, UnitId.parse(unit), PatchQuery(limit=k, **query))
        return as_table(page.rows, PatchRow)

    def labels(self, unit: str) -> pa.Table:
        """Labels among a unit's first ranks, with lift."""
        return as_table(labels(self._asked.atlas, UnitId.parse(unit)).rows, LabelRow)

    def explain(self, image: str, layer: str | None = None, k: int = 20) -> pa.Table:
        """The units that an image excites most unusually, by percentile."""
        return as_table(self._asked.explain(self._asked.find(image), layer, k).rows, ExplainRow)

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
        return as_table(self._asked.neighbors(subject, wanted, k, exact, Filter(**passing)).rows, NeighborRow)

    def project(self, unit: str, method: str = "deconvnet", k: int = 9) -> pa.Table:
        """The projections of a unit's first patches, by `deconvnet`, `guided` or `gradient`; made once, then kept."""
        return as_table(projections(self._asked, UnitId.parse(unit), method, k).rows, VisualRow)

    def filters(self, layer: str = "first") -> pa.Table:
        """One row for each filter of a layer of the model; `first` is the first layer with weights."""
        return as_table(filter_page(self._asked, layer).rows, FilterRow)

    def eigen(self, unit: str, k: int = 64, count: int = 9, size: tuple[int, int] | None = None) -> EigenPatches:
        """Mean and principal components of a unit's patches, aligned at their peaks; `size` in input pixels."""
        return eigen_patches(self._asked, UnitId.parse(unit), k, count, None if size is None else Size(*size))

    def optimise(self, unit: str, recipe: str = "olah2017", **how: Any) -> pa.Table:
        """Pictures optimised for a unit (of a layer, for all live ones), made here unless they are stored.

        `how` as in `schemas.visuals.OptimiseQuery`: steps, objective, start, seed, count, top.
        """
        query = OptimiseQuery(units=(unit,), recipe=recipe, **how)
        return as_table(list(optimise(self._asked, query)), VisualRow)

    def visualisations(self, unit: str) -> pa.Table:
        """The stored pictures of a unit, each with the activation it reaches beside the corpus."""
        return as_table(visualisations(self._asked.atlas, UnitId.parse(unit)).rows, VisualRow)

    def visualisation(self, unit: str, name: str) -> bytes:
        """The PNG of a stored picture by its id."""
        return visual_picture(self._asked.atlas, UnitId.parse(unit), name)[1]

    def __repr__(self) -> str:
        summary = self._asked.atlas.summary()
        return f"<atlas {summary.name}: {summary.images} images × {summary.units} units of {summary.model}>"
