"""The page of a layer: every unit a tile, in the order and of the kind of picture that its address asks for."""

import shlex
from collections import Counter
from dataclasses import dataclass, replace

from unitscope_schemas.geometry import Size
from unitscope_schemas.questions import UnitsQuestion, UnitStatus
from unitscope_services.figures.sprites import FIRST_TILES, SHEET_PX, Sprite
from unitscope_services.figures.tiles import TILE_PX, SpriteKind, channels_with, state_of
from unitscope_services.pages.views import Choice, LayerTile, LayerView, NoTiles
from unitscope_services.queries import units
from unitscope_services.queries.session import Session
from unitscope_services.server.links import Value, links_of

TILES = 512
"""Tiles that are shown at once; the list goes on where its end is seen, and the browser shows another order in a
quarter of the time."""

_SORTS = {
    "channel": "channel",
    "-maximum": "highest peak",
    "-mean": "mean",
    "-std": "spread",
    "positive_share": "most selective",
    "status": "status",
}
_KINDS: dict[SpriteKind, str] = {
    "patch": "top patch",
    "optimised": "optimised",
    "projection": "projection",
    "filter": "filter",
}
_ABOUT: dict[SpriteKind, str] = {
    "patch": "Each tile is the patch of the corpus that excites the unit most; below it the unit and its highest peak.",
    "optimised": "Each tile is the stored input, made for the unit, that excites it most, cut to what the unit sees; "
    "below it the unit and its highest peak in the corpus. Units without one stand last.",
    "projection": "Each tile is a patch of the unit projected to its pixels, the one of the highest activation: grey "
    "is nothing, each in its own scale; below it the unit and its highest peak. Units without one stand last.",
    "filter": "Each tile is the unit's weights: grey is zero, each in its own scale; below it the unit and its highest "
    "peak.",
}
_NONE_MADE = "none made"


@dataclass(frozen=True)
class LayerAddress:
    """What the address of a layer's page asks for."""

    kind: SpriteKind = "patch"
    sort: str = "channel"
    status: UnitStatus | None = None
    cursor: str | None = None


def layer_view(session: Session, layer: str, address: LayerAddress) -> LayerView:
    """Return a layer as tiles, one per unit."""
    atlas, kind, sort, status = session.atlas, address.kind, address.sort, address.status
    question = UnitsQuestion(sort=sort, status=status, k=TILES, cursor=address.cursor)
    order, subject = _order(session, layer, kind, question), f"{atlas.version} {layer} {kind} {sort} {status}"
    channels, following = units.channel_page(order, subject, question)
    links = links_of(atlas)
    counts = Counter(atlas.units(layer)["status"].to_pylist())
    missing = _no_tiles(session, layer, kind)
    tiles = _tiles(session, layer, kind, channels) if missing is None else []
    preview = next((tile.sheet for tile in tiles if tile.sheet), None)
    if kind != "filter" and address.cursor is None:
        tiles = _first_seen(session, layer, kind, tiles)

    def here(**changed: Value) -> str:
        query: dict[str, Value] = {"kind": None if kind == "patch" else kind, "sort": sort, "status": status}
        return links.layer(layer, **{**query, **changed})

    row, input_size = atlas.layer_row(layer), atlas.manifest.preprocessing.input
    return LayerView(
        atlas=atlas.summary(),
        links=links,
        layer=row,
        input=input_size,
        sees_all=_covers(row.receptive_field, input_size),
        tiles=tiles,
        sheet_px=(SHEET_PX, TILE_PX),
        preview=preview,
        command=shlex.join(["unitscope", "units", atlas.name, layer, "--sort", sort]),
        kinds=[
            Choice(text, here(kind=None if name == "patch" else name), name == kind)
            for name, text in _KINDS.items()
            if name != "filter" or _may_be_first(session, layer)
        ],
        about=_ABOUT[kind],
        missing=missing,
        filters=links.filters() if _may_be_first(session, layer) else None,
        sorts=[Choice(text, here(sort=name), name == sort) for name, text in _SORTS.items()],
        statuses=[
            Choice("all", here(status=None), status is None, str(sum(counts.values()))),
            *(
                Choice(name, here(status=name), name == status, str(counts[name]))
                for name in units.STATUSES
                if counts[name]
            ),
        ],
        following=following and here(cursor=following),
        rows_api=links.api("layers", layer, "units"),
    )


def _covers(field: Size | None, whole: Size) -> bool:
    """Return whether a receptive field is as large as the input; without a size it is."""
    return field is None or (field.height >= whole.height and field.width >= whole.width)


def _order(session: Session, layer: str, kind: SpriteKind, question: UnitsQuestion) -> list[int]:
    """Return the channels in the order asked for; units of which nothing was made stand last."""
    order = units.channel_order(session.atlas, layer, question)
    if kind not in ("optimised", "projection"):
        return order
    shown = channels_with(session, layer, kind)
    return sorted(order, key=lambda channel: channel not in shown)


def _may_be_first(session: Session, layer: str) -> bool:
    """Return whether a layer can be the model's first with weights: only the first recorded layer can."""
    return session.atlas.manifest.layers[0].spec.name == layer


def _no_tiles(session: Session, layer: str, kind: SpriteKind) -> NoTiles | None:
    """Return why there is nothing to show, if so; raises NotFoundError for a layer that is not recorded."""
    atlas = session.atlas
    if kind == "filter":
        first = session.first_filters.layer
        reason = f"Filters are those of the model's first layer with weights, {first}; {layer} lies behind it."
        return None if first == layer else NoTiles(reason, href=links_of(atlas).filters())
    if kind == "patch" or channels_with(session, layer, kind):
        return None
    if kind == "optimised":
        words, what = ["optimise", atlas.name, layer], "No input has been made for a unit of this layer."
    else:
        words = ["project", atlas.name, f"{layer}:0", "--method", "guided"]
        what = "No patch has been projected for a unit of this layer."
    return NoTiles(f"{what} This command makes them:", shlex.join(["unitscope", *words]))


def _tiles(session: Session, layer: str, kind: SpriteKind, channels: list[int]) -> list[LayerTile]:
    """Return the tiles of some units, in their order."""
    links, shown = links_of(session.atlas), channels_with(session, layer, kind)
    state, table = state_of(session, layer, kind), session.atlas.units(layer).take(channels)
    statuses, maxima = table["status"].to_pylist(), table["maximum"].to_pylist()
    sheets: dict[int, str] = {}
    tiles, ranked = [], session.atlas.statistics(layer).ranked
    for channel, status, maximum, href in zip(channels, statuses, maxima, links.units(layer, channels), strict=True):
        if channel not in shown:
            tiles.append(
                LayerTile(channel, status, maximum, href, without=_NONE_MADE if ranked[channel] else "never active")
            )
            continue
        sprite = Sprite.of(channel)
        if sprite.sheet not in sheets:
            sheets[sprite.sheet] = links.sprites(layer, sprite.sheet, kind, state)
        tiles.append(LayerTile(channel, status, maximum, href, sheets[sprite.sheet], sprite))
    return tiles


def _first_seen(session: Session, layer: str, kind: SpriteKind, tiles: list[LayerTile]) -> list[LayerTile]:
    """Return the tiles with the first of them on a sheet of their own: in any order of the units it is made of few
    pictures, where the sheets of the layer are each made of 256."""
    first = [tile.channel for tile in tiles if tile.sheet][:FIRST_TILES]
    sheet = links_of(session.atlas).sprites(layer, first, kind, state_of(session, layer, kind))
    positions = {channel: position for position, channel in enumerate(first)}
    return [
        replace(tile, sheet=sheet, sprite=Sprite.of(positions[tile.channel])) if tile.channel in positions else tile
        for tile in tiles
    ]
