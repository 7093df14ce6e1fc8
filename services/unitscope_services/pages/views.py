"""What each page shows: the same answers as the API's, with links and drawings; read by the templates."""

from dataclasses import dataclass

from unitscope_schemas.answers.patches import (
    ActivationMap,
    ExplainRow,
    Histogram,
    LabelPage,
    LabelRow,
    NeighborRow,
    PatchPage,
    PatchRow,
    SearchInfo,
    UnitRow,
)
from unitscope_schemas.answers.served import AtlasRow, ImageRow, LayerRow, SkippedPage, Upload
from unitscope_schemas.geometry import Box, Location, Size
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.questions import UnitStatus
from unitscope_schemas.units import UnitId
from unitscope_services.encoding.cells import CellGrid
from unitscope_services.figures.sprites import Sprite
from unitscope_services.pages.charts import Chart
from unitscope_services.pages.unit_visuals import UnitVisuals
from unitscope_services.server.links import Links


@dataclass(frozen=True)
class Choice:
    """A choice among several ways to look at a page."""

    name: str
    href: str
    current: bool
    note: str = ""


@dataclass(frozen=True)
class Way:
    """A way to have an answer elsewhere, as a text to copy."""

    name: str
    text: str


@dataclass(frozen=True)
class Patch:
    """An exemplar with its picture and the page of its image."""

    row: PatchRow
    picture: str
    href: str


@dataclass(frozen=True)
class PatchStrip:
    """A unit with its first patches in a line."""

    unit: UnitId
    href: str
    patches: list[Patch]


@dataclass(frozen=True)
class HomeAtlas:
    """A served atlas with a few striking units; none where they are not sought."""

    atlas: AtlasRow
    links: Links
    striking: list[PatchStrip]


@dataclass(frozen=True)
class HomeView:
    """The served atlases; `computes`: whether anyone may upload, and have things made here."""

    atlases: list[HomeAtlas]
    computes: bool


@dataclass(frozen=True)
class AtlasView:
    """An atlas with its layers and a few striking units; `uploads`: whether anyone may upload."""

    atlas: AtlasRow
    links: Links
    manifest: Manifest
    layers: list[LayerRow]
    striking: list[PatchStrip]
    uploads: bool
    command: str


@dataclass(frozen=True)
class SkippedView:
    """The files of a corpus that are no usable image."""

    atlas: AtlasRow
    links: Links
    page: SkippedPage
    following: str | None


@dataclass(frozen=True)
class LayerTile:
    """A unit with its picture: a sheet and the position there, or a `picture` of its own; or why it has none."""

    channel: int
    status: UnitStatus
    maximum: float | None
    href: str
    sheet: str | None = None
    sprite: Sprite | None = None
    picture: str | None = None
    without: str = ""


@dataclass(frozen=True)
class NoTiles:
    """Why no unit of a layer has a picture of a kind, and what would help: a command, or a page."""

    reason: str
    command: str | None = None
    href: str | None = None


@dataclass(frozen=True)
class LayerView:
    """A layer as tiles.

    `about` says what the tiles show; `missing` is there where no unit has such a picture. `sees_all`: whether its units
    see all of the network's `input`.
    """

    atlas: AtlasRow
    links: Links
    layer: LayerRow
    input: Size
    sees_all: bool
    tiles: list[LayerTile]
    sheet_px: tuple[int, int]
    """Side of a sheet and of a tile on it."""
    preview: str | None
    command: str
    kinds: list[Choice]
    about: str
    missing: NoTiles | None
    filters: str | None
    sorts: list[Choice]
    statuses: list[Choice]
    following: str | None
    rows_api: str


@dataclass(frozen=True)
class UnitView:
    """A unit's patches, distribution and labels.

    `effective`: size of the unit's effective field, where patches show it, as the theoretical one is the whole input.
    `form_fields`: what the form for the band passes on; `band_count`: images in it.
    """

    atlas: AtlasRow
    links: Links
    layer: LayerRow
    unit: UnitRow
    id: str
    page: PatchPage
    patches: list[Patch]
    looks: list[Choice]
    orders: list[Choice]
    bands: list[Choice]
    label: str | None
    without_label: str
    band: tuple[float, float]
    band_count: int
    form_fields: dict[str, str]
    label_links: dict[str, str]
    histogram: Histogram
    chart: Chart | None
    labels: LabelPage
    before: str | None
    after: str | None
    following: str | None
    rows_api: str
    rows_query: str
    preview: str | None
    embed: str
    effective: Size | None
    first_labels: LabelPage
    """Labels among the first ranks of the unit, whatever the band."""
    standing_out: list[LabelRow]
    """First labels that are more frequent than by chance."""
    ways: list[Way]
    visuals: UnitVisuals


@dataclass(frozen=True)
class ExcitedUnit:
    """A unit that the picture excites, and where; `spot` frames the position, `map` lays the unit's map over it."""

    row: ExplainRow
    box: Box
    href: str
    first: Patch | None
    """Patch of the corpus that excites the unit most."""
    spot: str
    map: str
    trace: str
    """Address of what the value rests on; empty for a picture from outside."""


@dataclass(frozen=True)
class Neighbor:
    """A patch that resembles a part of the picture."""

    row: NeighborRow
    picture: str
    href: str


@dataclass(frozen=True)
class CellView:
    """A cell of a layer's grid, and the units that are most unusually active there."""

    layer: str
    location: Location
    units: list[ExcitedUnit]


@dataclass(frozen=True)
class MapOverlay:
    """A unit whose map lies over the picture, the activations that its lowest and highest colour stand for, and the
    position of the highest."""

    unit: UnitId
    map: ActivationMap
    low: float | None
    high: float | None
    href: str
    picture: str
    values: str
    without: str


@dataclass(frozen=True)
class PictureView:
    """An image of the corpus (`image`) or an upload (`upload`), maybe both.

    `start` is the page's address without parameters, `form_fields` what its forms pass on; `grid` are the cells of
    `grid_layer`. Without `computes` the reader may not run the model: there are no cells, maps or boxes to ask for.
    """

    atlas: AtlasRow
    links: Links
    title: str
    image: ImageRow | None
    upload: Upload | None
    picture: str
    preview: str | None
    size: Size
    seen: Box
    spot: Box | None
    box: Box | None
    computes: bool
    start: str
    form_fields: dict[str, str]
    layer: str | None
    grid: CellGrid
    grid_layer: str
    cell: CellView | None
    overlay: MapOverlay | None
    excited: list[ExcitedUnit]
    neighbors: list[Neighbor]
    search: SearchInfo
    whole: str
    layers: list[Choice]
    units_api: str
    cells_api: str | None
    neighbors_api: str
    neighbors_query: str
    command: str | None
