"""The page of filters: a layer's weights as tiles, each linked to its unit."""

import shlex
from dataclasses import dataclass

from unitscope_schemas.answers.served import AtlasRow
from unitscope_schemas.answers.visuals import LinkedFilterRow
from unitscope_services.figures.conv_filters import filter_page
from unitscope_services.figures.sprites import Sprite
from unitscope_services.figures.tiles import TILE_PX
from unitscope_services.queries.session import Session
from unitscope_services.server.linked import linked_filters
from unitscope_services.server.links import Links, links_of


@dataclass(frozen=True)
class FilterTile:
    """A filter with its position on a sheet, and its unit's page or, if the layer is not recorded, its own picture."""

    row: LinkedFilterRow
    href: str
    sheet: str
    sprite: Sprite


@dataclass(frozen=True)
class FiltersView:
    """The filters of a layer; `recorded` tells whether the atlas records its units."""

    atlas: AtlasRow
    links: Links
    layer: str
    recorded: bool
    tiles: list[FilterTile]
    tile_px: int
    command: str
    rows_api: str
    sheet_api: str


def filters_view(session: Session, layer: str) -> FiltersView:
    """Return the filters of a layer of the model, recorded or not; `first` is the first layer with weights."""
    atlas = session.atlas
    page = linked_filters(atlas, filter_page(session, layer))
    links, words = links_of(atlas), ["unitscope", "filters", atlas.name]
    recorded = atlas.manifest.layer(page.layer) is not None
    tiles = []
    for row in page.rows:
        sprite = Sprite.of(row.channel)
        href = links.unit(page.layer, row.channel) if recorded else row.url
        tiles.append(FilterTile(row, href, links.sprites(page.layer, sprite.sheet, "filter"), sprite))
    if layer != "first":
        words += ["--layer", layer]
    return FiltersView(
        atlas=atlas.summary(),
        links=links,
        layer=page.layer,
        recorded=recorded,
        tiles=tiles,
        tile_px=TILE_PX,
        command=shlex.join([*words, "--out", "filters.png"]),
        rows_api=links.api("layers", page.layer, "filters"),
        sheet_api=links.api("layers", page.layer, "filters", "sheet"),
    )
