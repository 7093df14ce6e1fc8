"""The page of one picture: what it excites, where, and what resembles a part of it."""

import shlex
from dataclasses import dataclass, replace

from unitscope_schemas.answers.patches import ExplainRow
from unitscope_schemas.answers.served import Upload
from unitscope_schemas.geometry import Box, Location
from unitscope_schemas.questions import CellQuestion, ExplainQuestion, NeighborsQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.encoding.cells import CellGrid
from unitscope_services.encoding.heat import limits
from unitscope_services.pages.pages import unit_strip
from unitscope_services.pages.views import CellView, Choice, ExcitedUnit, MapOverlay, Neighbor, Patch, PictureView
from unitscope_services.queries import units
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session, Subject
from unitscope_services.server.links import Value, box_text, links_of

_EXPLAINED = 12
_AT_CELL = 8
_NEIGHBORS = 9
_NEIGHBOR_PX = 240
_WHOLE_PX = 960


@dataclass(frozen=True)
class PictureAddress:
    """What the address of a picture's page asks for.

    `layer` is the one whose units are listed and whose cells are asked about; `cell` one of these, `unit` the one whose
    map is laid over the picture, `box` a part whose nearest patches are listed, `spot` a frame to draw.
    """

    layer: str | None = None
    spot: Box | None = None
    box: Box | None = None
    unit: UnitId | None = None
    cell: Location | None = None

    @property
    def runs_model(self) -> bool:
        """Whether the page takes a forward of the model."""
        return any(part is not None for part in (self.box, self.unit, self.cell))

    def query(self) -> dict[str, Value]:
        """Return the parameters of the address."""
        return {
            "layer": self.layer,
            "cell": self.cell and f"{self.cell.row},{self.cell.col}",
            "unit": self.unit and str(self.unit),
            "box": self.box and box_text(self.box),
            "spot": self.spot and box_text(self.spot),
        }


class PicturePage:
    """The page of a picture of the corpus, or of an upload."""

    def __init__(
        self, session: Session, subject: Subject, upload: Upload | None, address: PictureAddress, computes: bool
    ) -> None:
        self._session, self._atlas, self._subject, self._upload = session, session.atlas, subject, upload
        self._address, self._computes = address, computes
        self._image = None if subject.image is None else session.atlas.image_row(subject.image)
        self._placement, self._links = session.placement(subject), links_of(session.atlas)
        unit_layer = address.unit.layer if address.unit else None
        self._grid_layer = unit_layer or address.layer or session.atlas.manifest.embedding.layer

    def view(self) -> PictureView:
        """Return all of the page."""
        atlas, links, address, image = self._atlas, self._links, self._address, self._image
        nearest = self._session.neighbors(self._subject, NeighborsQuestion(box=address.box, k=_NEIGHBORS + 1))
        own_id = image.image_id if image else None
        shown = [row for row in nearest.rows if row.image_id != own_id][:_NEIGHBORS]
        rows = self._session.explain(self._subject, ExplainQuestion(layer=address.layer, k=_EXPLAINED)).rows
        return PictureView(
            atlas=atlas.summary(),
            links=links,
            title=image.path if image else "Your picture",
            image=image,
            upload=self._upload,
            picture=self._picture(),
            preview=links.whole(image.image_id, _WHOLE_PX) if image else None,
            size=self._placement.image,
            seen=self._placement.seen,
            spot=address.spot,
            box=address.box,
            computes=self._computes,
            start=self._start(),
            form_fields={name: str(value) for name, value in address.query().items() if value is not None},
            layer=address.layer,
            grid=CellGrid.of(atlas.layer(self._grid_layer).spec, self._placement),
            grid_layer=self._grid_layer,
            cell=self.cell_view(address.cell) if address.cell else None,
            overlay=self._overlay(address.unit) if address.unit else None,
            excited=[self._excited(row) for row in rows],
            neighbors=[
                Neighbor(row, links.patch(row.image_id, row.box, _NEIGHBOR_PX), links.image(row.image_id))
                for row in shown
            ],
            search=nearest.search,
            whole=self._at(box=None),
            layers=self._layers(),
            units_api=links.api(*self._parts(), "units"),
            cells_api=links.api(*self._parts(), "cells"),
            neighbors_api=links.api(*self._parts(), "neighbors"),
            neighbors_query=f"?box={box_text(address.box)}" if address.box else "",
            command=self._command(),
        )

    def cell_view(self, cell: Location) -> CellView:
        """Return a cell and its units; raises UsageError if it is not on the layer's grid."""
        question = CellQuestion(layer=self._grid_layer, row=cell.row, col=cell.col, k=_AT_CELL)
        rows = self._session.at_cell(self._subject, question).rows
        return CellView(self._grid_layer, cell, [self._excited(row) for row in rows])

    def _excited(self, row: ExplainRow) -> ExcitedUnit:
        unit = UnitId(row.layer, row.channel)
        box = units.box_to_show(self._atlas.field(unit), self._placement, Location(row.row, row.col))
        return ExcitedUnit(
            row,
            box,
            self._links.unit(*unit),
            self._first_patch(unit),
            self._at(spot=box),
            self._at(unit=unit, cell=self._cell_on(unit.layer)),
            self._links.at(self._links.part(*unit, "trace"), image=self._image.image_id[:16]) if self._image else "",
        )

    def _first_patch(self, unit: UnitId) -> Patch | None:
        rows = patches(self._atlas, unit, TopQuestion(k=1)).rows
        return next(iter(unit_strip(self._atlas, unit, rows).patches), None)

    def _overlay(self, unit: UnitId) -> MapOverlay:
        parts = self._parts()
        query: dict[str, Value] = {"layer": unit.layer, "unit": unit.channel}
        activations = self._session.activation_map(self._subject, unit)
        low, high = limits(activations) or (None, None)
        return MapOverlay(
            unit=unit,
            map=activations,
            low=low,
            high=high,
            href=self._links.unit(*unit),
            picture=self._links.api(*parts, "map.png", **query, v=self._links.version),
            values=self._links.api(*parts, "map", **query),
            without=self._at(unit=None),
        )

    def _cell_on(self, layer: str) -> Location | None:
        """Return the chosen cell, as long as cells are those of this layer."""
        return self._address.cell if self._grid_layer == layer else None

    def _layers(self) -> list[Choice]:
        chosen = self._address.layer
        names = [entry.spec.name for entry in self._atlas.manifest.layers]
        return [
            Choice("all layers", self._at(layer=None, cell=None, unit=None), chosen is None),
            *(Choice(name, self._at(layer=name, cell=None, unit=None), name == chosen) for name in names),
        ]

    def _command(self) -> str | None:
        if self._image is None:
            return None
        words = ["unitscope", "neighbors", self._atlas.name, self._image.path]
        return shlex.join([*words, "--box", box_text(self._address.box)] if self._address.box else words)

    def _parts(self) -> tuple[str, str]:
        if self._image is not None:
            return "images", self._image.image_id
        assert self._upload is not None
        return "uploads", self._upload.id

    def _picture(self) -> str:
        if self._image is not None:
            return self._links.whole(self._image.image_id, _WHOLE_PX)
        return self._links.api(*self._parts(), "picture.jpg", width=_WHOLE_PX)

    def _start(self) -> str:
        if self._upload is not None:
            return f"{self._links.uploads}/{self._upload.id}"
        assert self._image is not None
        return self._links.image(self._image.image_id)

    def _at(self, **changed: Box | Location | UnitId | str | None) -> str:
        return self._links.at(self._start(), **replace(self._address, **changed).query())  # type: ignore[arg-type]
