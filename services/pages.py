"""Makes what pages show, from the same functions that the API answers with."""

import shlex
from collections import Counter
from dataclasses import dataclass

from schemas.geometry import Box, Location
from schemas.units import UnitId
from schemas.web import LayerRow, NeighborRow, PatchRow, Upload
from services import selectivity, units
from services.atlas import Atlas
from services.charts import histogram_chart
from services.learned import learned
from services.links import Links, Value, box_text
from services.questions import patch_query, quantile_band
from services.subjects import Asked, Subject
from services.views import AtlasView, Choice, Excited, LayerView, Neighbor, Patch, PictureView, Strip, Tile, UnitView

TILES = 60
PATCHES = 9
_EXPLAINED = 12
_NEIGHBORS = 9
_LABELS = 8
_TILE_PX = 128
PATCH_PX = 360
_NEIGHBOR_PX = 240
_WHOLE_PX = 960

_SORTS = {
    "channel": "channel",
    "-maximum": "highest peak",
    "-mean": "mean",
    "-std": "spread",
    "positive_share": "most selective",
    "status": "status",
}
_LOOKS: dict[str, dict[str, Value]] = {"patch": {}, "context": {"context": 1}, "whole": {"overlay": "box"}}
_BANDS = {
    None: "all",
    "0.9..0.99": "90 – 99 %",
    "0.5..0.9": "50 – 90 %",
    "0.1..0.5": "10 – 50 %",
    "0..0.1": "0 – 10 %",
}
_ORDERS = {"desc": "highest", "asc": "lowest", "random": "random"}


@dataclass(frozen=True)
class UnitAddress:
    """What the address of a unit's page asks for."""

    look: str = "patch"
    order: str = "desc"
    quantile: str | None = None
    label: str | None = None
    cursor: str | None = None
    count: int = PATCHES


def links_of(atlas: Atlas) -> Links:
    """Addresses within an atlas in its present version."""
    return Links(atlas.name, atlas.version)


def atlas_view(asked: Asked, uploads: bool) -> AtlasView:
    """Where an atlas comes from, its layers, a few striking units, and whether anyone may upload."""
    atlas = asked.atlas
    links, config = links_of(atlas), atlas.manifest.config
    words = ["unitscope", "index", _last_name(config["corpus"]), "--atlas", atlas.name]
    words += ["--model", atlas.manifest.model.spec, "--batch-size", str(atlas.manifest.batch_size)]
    words += [word for glob in config["layers"] for word in ("--layers", glob)]
    return AtlasView(
        atlas=atlas.summary(),
        links=links,
        manifest=atlas.manifest,
        layers=atlas.layers(),
        striking=[_strip(atlas, unit, rows) for unit, rows in asked.striking],
        uploads=uploads,
        command=shlex.join(words),
    )


def layer_view(atlas: Atlas, layer: str, sort: str, status: str | None, cursor: str | None) -> LayerView:
    """A layer as tiles, one per unit."""
    page = units.unit_page(atlas, layer, sort, TILES, cursor, status)
    links = links_of(atlas)
    counts = Counter(atlas.units(layer)["status"].to_pylist())
    with_patches = [row.channel for row in page.rows if row.status != "dead" and row.image_count]
    first = atlas.first_images(layer, with_patches)
    tiles = []
    for row in page.rows:
        image = first.get(row.channel)
        unit = str(UnitId(layer, row.channel))
        picture = None if image is None else links.peak(image["image_id"], unit, _TILE_PX)
        path = "" if image is None else image["path"]
        tiles.append(Tile(row, links.unit(layer, row.channel), picture, path))
    chosen = [status for status in units.STATUSES if counts[status]]
    return LayerView(
        atlas=atlas.summary(),
        links=links,
        layer=layer_row(atlas, layer),
        tiles=tiles,
        sorts=[
            Choice(text, links.layer(layer, sort=name, status=status), name == sort) for name, text in _SORTS.items()
        ],
        statuses=[
            Choice("all", links.layer(layer, sort=sort), status is None, str(sum(counts.values()))),
            *(
                Choice(name, links.layer(layer, sort=sort, status=name), name == status, str(counts[name]))
                for name in chosen
            ),
        ],
        following=page.next and links.layer(layer, sort=sort, status=status, cursor=page.next),
        rows_api=links.api("layers", layer, "units"),
    )


def unit_view(atlas: Atlas, unit: UnitId, asked: UnitAddress, computes: bool = False) -> UnitView:
    """A unit's patches, distribution and labels, and what was made of it; whether the reader `computes` decides what
    the page offers to make."""
    statistics = atlas.unit(unit)
    query = patch_query(asked.count, asked.quantile, asked.label, asked.order, cursor=asked.cursor)
    page = units.patches(atlas, unit, query)
    links, layer = links_of(atlas), layer_row(atlas, unit.layer)
    histogram = units.histogram(atlas, unit)
    labels = selectivity.labels(atlas, unit, limit=_LABELS)
    own: dict[str, Value] = {
        "order": _unless(asked.order, "desc"),
        "quantile": asked.quantile,
        "label": asked.label,
    }
    look: dict[str, Value] = {"look": _unless(asked.look, "patch")}
    spec = atlas.layer(unit.layer).spec

    def here(**changed: Value) -> str:
        return links.unit(*unit, {**own, **look, **changed})

    return UnitView(
        atlas=atlas.summary(),
        links=links,
        layer=layer,
        unit=units.unit_row(unit.layer, statistics),
        id=str(unit),
        page=page,
        patches=[_patch(links, unit, row, units.shown_box(spec, row), asked.look) for row in page.rows],
        looks=[
            Choice(name, here(look=_unless(name, "patch"), cursor=asked.cursor), name == asked.look) for name in _LOOKS
        ],
        orders=[Choice(text, here(order=_unless(name, "desc")), name == asked.order) for name, text in _ORDERS.items()],
        bands=[Choice(text, here(quantile=band), band == asked.quantile) for band, text in _BANDS.items()],
        label=asked.label,
        without_label=here(label=None),
        label_links={row.label: here(label=row.label) for row in labels.rows},
        histogram=histogram,
        chart=histogram_chart(histogram, quantile_band(asked.quantile) if asked.quantile else None),
        labels=labels,
        before=links.unit(unit.layer, unit.channel - 1) if unit.channel > 0 else None,
        after=links.unit(unit.layer, unit.channel + 1) if unit.channel + 1 < spec.units else None,
        following=page.next and here(cursor=page.next),
        rows_api=links.api("layers", unit.layer, "units", unit.channel, "patches"),
        effective=spec.receptive_field.covers_input,
        command=_top_command(atlas, unit, asked.count, own),
        learned=learned(atlas, unit, computes),
    )


def picture_view(
    asked: Asked, subject: Subject, upload: Upload | None, layer: str | None, spot: Box | None
) -> PictureView:
    """A picture, the units that it excites most unusually, and what resembles it."""
    atlas = asked.atlas
    links, placement = links_of(atlas), asked.placement(subject)
    image = None if subject.image is None else atlas.image_row(subject.image)
    parts = ("images", image.image_id) if image else ("uploads", upload.id if upload else "")
    nearest = asked.neighbors(subject, limit=_NEIGHBORS + 1)

    def here(**query: Value) -> str:
        start = f"{links.uploads}/{upload.id}" if upload else links.image(parts[1])
        return links.at(start, **query)

    excited = []
    for row in asked.explain(subject, layer, _EXPLAINED).rows:
        box = units.box_to_show(atlas.layer(row.layer).spec, placement, Location(row.row, row.col))
        excited.append(Excited(row, box, links.unit(row.layer, row.channel), here(layer=layer, spot=box_text(box))))
    names = [entry.spec.name for entry in atlas.manifest.layers]
    return PictureView(
        atlas=atlas.summary(),
        links=links,
        title=image.path if image else "Your picture",
        image=image,
        upload=upload,
        picture=links.whole(parts[1], _WHOLE_PX) if image else links.api(*parts, "picture.jpg", width=_WHOLE_PX),
        size=placement.image,
        seen=placement.seen,
        spot=spot,
        excited=excited,
        neighbors=[
            Neighbor(row, links.patch(row.image_id, row.box, _NEIGHBOR_PX), links.image(row.image_id))
            for row in _others(nearest.rows, image.image_id if image else None)
        ],
        search=nearest.search,
        layers=[
            Choice("all layers", here(), layer is None),
            *(Choice(name, here(layer=name), name == layer) for name in names),
        ],
        units_api=links.api(*parts, "units"),
        neighbors_api=links.api(*parts, "neighbors"),
    )


def _others(rows: list[NeighborRow], image_id: str | None) -> list[NeighborRow]:
    return [row for row in rows if row.image_id != image_id][:_NEIGHBORS]


def _patch(links: Links, unit: UnitId, row: PatchRow, box: Box, look: str, size: int = PATCH_PX) -> Patch:
    picture = links.peak(row.image_id, str(unit), size, _LOOKS[look])
    return Patch(row, picture, links.image(row.image_id, spot=box_text(box)))


def _strip(atlas: Atlas, unit: UnitId, rows: list[PatchRow]) -> Strip:
    links, spec = links_of(atlas), atlas.layer(unit.layer).spec
    patches = [_patch(links, unit, row, units.shown_box(spec, row), "patch", _TILE_PX) for row in rows]
    return Strip(unit, links.unit(*unit), patches)


def layer_row(atlas: Atlas, layer: str) -> LayerRow:
    """One layer as answers show it."""
    name = atlas.layer(layer).spec.name
    return next(row for row in atlas.layers() if row.name == name)


def _top_command(atlas: Atlas, unit: UnitId, count: int, query: dict[str, Value]) -> str:
    words = ["unitscope", "top", atlas.name, str(unit), "-k", str(count)]
    for name, value in query.items():
        words += [f"--{name}", str(value)] if value else []
    return shlex.join(words)


def _unless(value: str, default: str) -> str | None:
    return None if value == default else value


def _last_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
