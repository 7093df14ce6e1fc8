"""What the live page shows before the first frame: layers, a unit and what is stored of it, a picture to begin with."""

from dataclasses import dataclass

from unitscope_schemas.answers.patches import UnitRow
from unitscope_schemas.answers.served import AtlasRow, ImageRow
from unitscope_schemas.geometry import Size
from unitscope_schemas.questions import HistogramQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.figures.sprites import COLUMNS, SHEET_TILES
from unitscope_services.figures.tiles import TILE_PX
from unitscope_services.pages.charts import Chart, histogram_chart
from unitscope_services.pages.unit_visuals import UnitVisuals, unit_visuals
from unitscope_services.pages.views import Patch
from unitscope_services.queries import units
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session
from unitscope_services.server.links import Links, links_of

_PATCHES = 9
_PATCH_PX = 160


@dataclass(frozen=True)
class LiveLayer:
    """A layer of the live page; `sheets` are the pictures of its units' patches, 256 to a sheet."""

    name: str
    units: int
    sheets: list[str]


@dataclass(frozen=True)
class LiveUnitView:
    """What an atlas knows of a unit, to stand beside what it does now."""

    links: Links
    id: str
    unit: UnitRow
    note: str | None
    patches: list[Patch]
    chart: Chart | None
    visuals: UnitVisuals


@dataclass(frozen=True)
class LiveView:
    """The live page before its first frame.

    `image` is the picture to begin with; `resize_px` and `input` the geometry of the network's input.
    """

    atlas: AtlasRow
    links: Links
    layers: list[LiveLayer]
    live_unit: LiveUnitView
    image: ImageRow
    resize_px: int
    input: Size
    upload_bytes: int
    tile_px: int = TILE_PX
    sheet_columns: int = COLUMNS


def live_view(session: Session, unit: UnitId, image: str | None, upload_bytes: int) -> LiveView:
    """Return the page with a unit chosen; raises NotFoundError for a unit or an image that is not there."""
    atlas = session.atlas
    links, preprocessing = links_of(atlas), atlas.manifest.preprocessing
    live_unit = live_unit_view(atlas, unit)
    name = image or (live_unit.patches[0].row.image_id if live_unit.patches else None)
    first = atlas.find_image(name) if name else atlas.catalogue.rows([0])[0]
    return LiveView(
        atlas=atlas.summary(),
        links=links,
        layers=[_layer(links, entry.spec.name, entry.spec.units) for entry in atlas.manifest.layers],
        live_unit=live_unit,
        image=atlas.image_row(first),
        resize_px=preprocessing.resize_px,
        input=preprocessing.input,
        upload_bytes=upload_bytes,
    )


def live_unit_view(atlas: Atlas, unit: UnitId) -> LiveUnitView:
    """Return the nine patches of a unit, its histogram, and what was made of it."""
    statistics, links = atlas.unit(unit), links_of(atlas)
    page = patches(atlas, unit, TopQuestion(k=_PATCHES))
    return LiveUnitView(
        links=links,
        id=str(unit),
        unit=units.unit_row(unit.layer, statistics),
        note=page.note,
        patches=[
            Patch(row, links.peak(row.image_id, str(unit), _PATCH_PX), links.live(unit=str(unit), image=row.image_id))
            for row in page.rows
        ],
        chart=histogram_chart(units.histogram(atlas, unit, HistogramQuestion())),
        visuals=unit_visuals(atlas, unit, computes=False),
    )


def first_unit(session: Session, unit: str | None, layer: str | None) -> UnitId:
    """Return the unit that is asked for, or else a striking one: of the layer, or of one in the middle."""
    if unit:
        return UnitId.parse(unit)
    if layer:
        return UnitId(session.atlas.layer(layer).spec.name, 0)
    striking = [unit_id for unit_id, _ in session.striking]
    return striking[len(striking) // 2] if striking else UnitId(session.atlas.manifest.layers[0].spec.name, 0)


def _layer(links: Links, name: str, count: int) -> LiveLayer:
    return LiveLayer(name, count, [links.sprites(name, sheet) for sheet in range(-(-count // SHEET_TILES))])
