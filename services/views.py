"""What each page shows: the same answers as the API's, with links and drawings; read by the templates."""

from dataclasses import dataclass

from schemas.geometry import Box, Size
from schemas.manifest import Manifest
from schemas.units import UnitId
from schemas.web import (
    AtlasRow,
    ExplainRow,
    Histogram,
    ImageRow,
    LabelPage,
    LayerRow,
    NeighborRow,
    PatchPage,
    PatchRow,
    SearchInfo,
    SkippedPage,
    UnitRow,
    Upload,
)
from services.charts import Chart
from services.learned import Learned
from services.links import Links


@dataclass(frozen=True)
class Choice:
    """One of several ways to look at a page."""

    name: str
    href: str
    current: bool
    note: str = ""


@dataclass(frozen=True)
class Patch:
    """An exemplar with its picture and the page of its image."""

    row: PatchRow
    picture: str
    href: str


@dataclass(frozen=True)
class HomeView:
    atlases: list[AtlasRow]


@dataclass(frozen=True)
class Strip:
    """A unit with its first patches in a line."""

    unit: UnitId
    href: str
    patches: list[Patch]


@dataclass(frozen=True)
class AtlasView:
    atlas: AtlasRow
    links: Links
    manifest: Manifest
    layers: list[LayerRow]
    striking: list[Strip]
    uploads: bool
    command: str


@dataclass(frozen=True)
class SkippedView:
    atlas: AtlasRow
    links: Links
    page: SkippedPage
    following: str | None


@dataclass(frozen=True)
class Tile:
    """A unit with its first patch; `picture` is None where the unit has no patches."""

    unit: UnitRow
    href: str
    picture: str | None
    path: str


@dataclass(frozen=True)
class LayerView:
    atlas: AtlasRow
    links: Links
    layer: LayerRow
    tiles: list[Tile]
    sorts: list[Choice]
    statuses: list[Choice]
    following: str | None
    rows_api: str


@dataclass(frozen=True)
class UnitView:
    """`effective`: patches show the effective field, as the theoretical one is the whole input."""

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
    label_links: dict[str, str]
    histogram: Histogram
    chart: Chart | None
    labels: LabelPage
    before: str | None
    after: str | None
    following: str | None
    rows_api: str
    effective: bool
    command: str
    learned: Learned


@dataclass(frozen=True)
class Excited:
    """A unit that the picture excites, and where in it."""

    row: ExplainRow
    box: Box
    href: str
    spot: str


@dataclass(frozen=True)
class Neighbor:
    row: NeighborRow
    picture: str
    href: str


@dataclass(frozen=True)
class PictureView:
    """An image of the corpus (`image`) or an upload (`upload`), maybe both."""

    atlas: AtlasRow
    links: Links
    title: str
    image: ImageRow | None
    upload: Upload | None
    picture: str
    size: Size
    seen: Box
    spot: Box | None
    excited: list[Excited]
    neighbors: list[Neighbor]
    search: SearchInfo
    layers: list[Choice]
    units_api: str
    neighbors_api: str
