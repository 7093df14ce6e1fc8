"""A bundle of pages that needs no server: index, layers and units as served, with their patches as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unitscope_schemas.answers.patches import PatchRow
from unitscope_schemas.answers.visuals import LinkedVisualRow
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.crops import encoded
from unitscope_services.exports.tables import Written, new_folder
from unitscope_services.figures.blanks import patch_tile
from unitscope_services.pages.layer import LayerAddress, layer_view
from unitscope_services.pages.pages import PATCH_PX, UnitAddress, atlas_view, unit_view
from unitscope_services.pages.unit_visuals import UnitVisuals
from unitscope_services.pages.views import LayerTile, Patch
from unitscope_services.queries.session import Session
from unitscope_services.queries.visuals import visual_picture
from unitscope_services.server.links import Links, Value
from unitscope_services.web.assets import make_templates, read_static


@dataclass(frozen=True)
class BundleLinks(Links):
    """Addresses among the files of a bundle, from a page so many folders down; what only a server answers is empty."""

    up: str = ""

    @property
    def home(self) -> str:
        """The bundle's first page."""
        return f"{self.up}index.html"

    @property
    def skipped(self) -> str:
        """Empty, as the bundle has no such page."""
        return ""

    @property
    def find(self) -> str:
        """Empty, as finding needs a server."""
        return ""

    def filters(self, layer: str | None = None) -> str:
        """Return nothing, as the bundle has no such page."""
        return ""

    @property
    def compare(self) -> str:
        """Empty, as comparing needs a server."""
        return ""

    def live(self, *parts: str, **query: Value) -> str:
        """Return nothing, as the live page needs a server."""
        return ""

    def api(self, *parts: Value, **query: Value) -> str:
        """Return nothing, as the API needs a server."""
        return ""

    def layer(self, name: str, **query: Value) -> str:
        """Return the file of a layer's page."""
        return f"{self.up}layers/{quote(name)}.html"

    def unit(self, layer: str, channel: int, query: Mapping[str, Value] | None = None) -> str:
        """Return the file of a unit's page."""
        return f"{self.up}units/{quote(layer)}/{channel}.html"

    def picture(self, unit: UnitId, row: PatchRow) -> str:
        """Return the file of one exemplar's patch."""
        return f"{self.up}patches/{quote(unit.layer)}/{unit.channel}-{row.rank}.jpg"


class Bundle:
    """The pages of some units of an atlas, written into a folder."""

    def __init__(self, atlas: Atlas, units: Sequence[UnitId], folder: Path) -> None:
        self._atlas, self._units, self._folder = atlas, set(units), folder
        self._session = Session(atlas.store, version=atlas.version, corpus=atlas.corpus, public=True)
        self.missing: dict[str, None] = {}
        """Path and reason of each picture for which a blank stands in, in order."""
        self._static = read_static()
        self._templates = make_templates(self._static)

    def write_static(self) -> None:
        """Write the style sheet and the mark."""
        for name, file in self._static.items():
            if not name.endswith(".js"):
                self._path("static", name).write_bytes(file.content)

    def write_index(self, layers: Sequence[str]) -> None:
        """Write the first page: provenance, and the layers that are here."""
        view = atlas_view(self._session, uploads=False)
        shown = [layer for layer in view.layers if layer.name in layers]
        links = self._links("")
        self._render("atlas.html", replace(view, links=links, layers=shown, striking=[]), links, "index.html")

    def write_unit(self, unit: UnitId, k: int) -> LayerTile:
        """Write the page of a unit with its patches beside it; gives its tile on the layer's page."""
        links = self._links("../../")
        view = unit_view(self._atlas, unit, UnitAddress(count=k))
        for row in view.page.rows:
            tile = patch_tile(self._atlas, unit, row, PATCH_PX)
            path = self._path("patches", unit.layer, f"{unit.channel}-{row.rank}.jpg")
            path.write_bytes(encoded(tile.picture, "jpg"))
            self.missing |= {tile.missing: None} if tile.missing else {}
        pictures = [links.picture(unit, row) for row in view.page.rows]
        before, after = UnitId(unit.layer, unit.channel - 1), UnitId(unit.layer, unit.channel + 1)
        view = replace(
            view,
            links=links,
            patches=[Patch(row, picture, picture) for row, picture in zip(view.page.rows, pictures, strict=True)],
            looks=[],
            orders=[],
            bands=[],
            label_links={},
            before=links.unit(*before) if before in self._units else None,
            after=links.unit(*after) if after in self._units else None,
            following=None,
            rows_api="",
            visuals=self._visuals(view.visuals, unit),
            preview=None,
        )
        self._render("unit.html", view, links, "units", unit.layer, f"{unit.channel}.html")
        on_layer = self._links("../")
        first = view.page.rows[0] if view.page.rows else None
        statistics = self._atlas.unit(unit)
        return LayerTile(
            unit.channel,
            statistics.status,
            statistics.maximum,
            on_layer.unit(*unit),
            picture=on_layer.picture(unit, first) if first else None,
            without="" if first else "never active",
        )

    def _visuals(self, visuals: UnitVisuals, unit: UnitId) -> UnitVisuals:
        """Return what was made of a unit, with its pictures as files."""

        def written(rows: list[LinkedVisualRow]) -> list[LinkedVisualRow]:
            addresses = []
            for row in rows:
                path = ("visuals", unit.layer, f"{unit.channel}-{row.id}.png")
                self._path(*path).write_bytes(visual_picture(self._atlas, unit, row.id)[1])
                addresses.append("../../" + "/".join(map(quote, path)))
            return [replace(row, url=address) for row, address in zip(rows, addresses, strict=True)]

        return replace(
            visuals,
            optimised=written(visuals.optimised),
            projections=written(visuals.projections),
            asks=None,
            rows_api="",
        )

    def write_layer(self, layer: str, tiles: list[LayerTile]) -> None:
        """Write the page of a layer with the units that are here."""
        links = self._links("../")
        view = replace(
            layer_view(self._session, layer, LayerAddress()),
            links=links,
            tiles=tiles,
            preview=None,
            kinds=[],
            filters=None,
            sorts=[],
            statuses=[],
            following=None,
            rows_api="",
        )
        self._render("layer.html", view, links, "layers", f"{layer}.html")

    def _links(self, up: str) -> BundleLinks:
        return BundleLinks(self._atlas.name, self._atlas.version, up)

    def _render(self, template: str, view: Any, links: BundleLinks, *path: str) -> None:
        around = {"home": links.home, "docs": "", "scripts": False, "static": lambda name: f"{links.up}static/{name}"}
        html = self._templates.get_template(template).render({**vars(view), **around})
        self._path(*path).write_text(html, encoding="utf-8")

    def _path(self, *parts: str) -> Path:
        path = self._folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def write_bundle(atlas: Atlas, units: Sequence[UnitId], out: Path, k: int = 9) -> Written:
    """Write a folder of pages that opens from `index.html` without a server or a script.

    A blank with the reason stands in for a picture that is gone. Raises UsageError if `out` holds anything.
    """
    tiles: dict[str, list[LayerTile]] = {}
    with new_folder(out) as folder:
        bundle = Bundle(atlas, units, folder)
        bundle.write_static()
        for unit in units:
            tiles.setdefault(unit.layer, []).append(bundle.write_unit(unit, k))
        for layer, layer_tiles in tiles.items():
            bundle.write_layer(layer, layer_tiles)
        bundle.write_index(list(tiles))
        exemplars = sum(1 for _ in (folder / "patches").rglob("*.jpg"))
    return Written(len(units), exemplars, tuple(bundle.missing))
