"""The pages of an atlas and of a unit, made from the same functions that the API answers with."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from unitscope_schemas.answers.patches import LabelPage, LabelRow, PatchRow
from unitscope_schemas.errors import AtlasError
from unitscope_schemas.geometry import Box
from unitscope_schemas.questions import HistogramQuestion, LabelsQuestion, Order, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.pages.charts import histogram_chart
from unitscope_services.pages.unit_visuals import unit_visuals
from unitscope_services.pages.views import AtlasView, Choice, HomeAtlas, HomeView, Patch, PatchStrip, UnitView, Way
from unitscope_services.queries import units
from unitscope_services.queries.exemplars import patches, rank_range
from unitscope_services.queries.labels import labels
from unitscope_services.queries.session import Session
from unitscope_services.server.links import Links, Value, box_text, links_of

PATCHES = 9
_SHOWN_ATLASES = 6
"""Atlases of the home page whose striking units are shown."""
_LABELS, _NAMED = 8, 3
_TILE_PX = 128
PATCH_PX = 360
_PREVIEW_PX = 600

_LOOKS: dict[str, dict[str, Value]] = {
    "patch": {},
    "masked": {"overlay": "mask"},
    "context": {"context": 1},
    "whole": {"overlay": "box"},
    "activation": {"overlay": "map"},
}
_COMPUTED_LOOKS = ("masked", "activation")
"""Looks that run the model."""
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
    order: Order = "desc"
    quantile: str | None = None
    label: str | None = None
    cursor: str | None = None
    count: int = PATCHES


def home_view(sessions: Sequence[Session], computes: bool) -> HomeView:
    """Return the served atlases, the first of them with a few striking units; none of one that is
    damaged, or whose pictures may not be shown."""
    atlases = []
    for number, session in enumerate(sessions):
        strips: list[PatchStrip] = []
        if number < _SHOWN_ATLASES and not session.atlas.hidden_roots:
            with suppress(AtlasError):  # its own page says what is wrong
                strips = [unit_strip(session.atlas, unit, rows) for unit, rows in session.striking]
        atlases.append(HomeAtlas(session.atlas.summary(), links_of(session.atlas), strips))
    return HomeView(atlases, computes)


def atlas_view(session: Session, uploads: bool) -> AtlasView:
    """Return where an atlas comes from, its layers, a few striking units, and whether anyone may upload."""
    atlas = session.atlas
    links, config = links_of(atlas), atlas.manifest.config
    first, *added = [root.corpus for root in atlas.manifest.corpus.roots] or [config["corpus"]]
    words = ["unitscope", "index", _last_name(first), "--atlas", atlas.name]
    more = [["unitscope", "index", _last_name(corpus), "--atlas", atlas.name, "--add"] for corpus in added]
    options = ["--model", atlas.model_name, "--batch-size", str(atlas.manifest.batch_size)]
    options += [word for glob in config["layers"] for word in ("--layers", glob)]
    for name in ("path", "label", "image"):
        column = config.get(f"{name}_column")
        options += [] if column is None else [f"--{name}-column", column]
    options += ["--allow-batch-dependence"] if atlas.manifest.batch_dependence else []
    options += [] if atlas.manifest.keep is None else ["--keep", f"top:{atlas.manifest.keep}"]
    return AtlasView(
        atlas=atlas.summary(),
        links=links,
        manifest=atlas.manifest,
        layers=atlas.layers(),
        striking=[unit_strip(atlas, unit, rows) for unit, rows in session.striking],
        uploads=uploads,
        command=" && ".join(shlex.join([*command, *options]) for command in (words, *more)),
    )


def unit_view(atlas: Atlas, unit: UnitId, address: UnitAddress, computes: bool = False) -> UnitView:
    """Return a unit's patches, distribution and labels, and what was made of it.

    Whether the reader `computes` decides which looks run the model and what the page offers to make.
    """
    statistics = atlas.unit(unit)
    question = TopQuestion(
        k=address.count,
        quantile=address.quantile,
        label=address.label,
        order=address.order,
        cursor=address.cursor,
    )
    page = patches(atlas, unit, question)
    links, layer = links_of(atlas), atlas.layer_row(unit.layer)
    histogram = units.histogram(atlas, unit, HistogramQuestion())
    band = question.band
    first_labels = labels(atlas, unit, LabelsQuestion(k=_LABELS, quantile=band))
    whole = labels(atlas, unit, LabelsQuestion(k=_LABELS)) if band else first_labels
    query: dict[str, Value] = {
        "order": _unless(address.order, "desc"),
        "quantile": address.quantile,
        "label": address.label,
    }
    look: dict[str, Value] = {"look": _unless(address.look, "patch")}
    spec, field = atlas.layer(unit.layer).spec, atlas.field(unit)

    def here(**changed: Value) -> str:
        return links.unit(*unit, {**query, **look, **changed})

    return UnitView(
        atlas=atlas.summary(),
        links=links,
        layer=layer,
        unit=units.unit_row(unit.layer, statistics),
        id=str(unit),
        page=page,
        patches=[_patch(links, unit, row, units.shown_box(field, row), address.look) for row in page.rows],
        looks=[
            Choice(name, here(look=_unless(name, "patch"), cursor=address.cursor), name == address.look)
            for name in _LOOKS
            if computes or name not in _COMPUTED_LOOKS
        ],
        orders=[
            Choice(text, here(order=_unless(name, "desc")), name == address.order) for name, text in _ORDERS.items()
        ],
        bands=[Choice(text, here(quantile=band), band == address.quantile) for band, text in _BANDS.items()],
        label=address.label,
        without_label=here(label=None),
        band=band or (0.0, 1.0),
        band_count=_band_count(statistics.image_count, band),
        form_fields={name: str(value) for name, value in {**query, **look}.items() if value is not None},
        label_links={row.label: here(label=row.label) for row in first_labels.rows},
        histogram=histogram,
        chart=histogram_chart(histogram, band),
        labels=first_labels,
        before=links.unit(unit.layer, unit.channel - 1) if unit.channel > 0 else None,
        after=links.unit(unit.layer, unit.channel + 1) if unit.channel + 1 < spec.units else None,
        following=page.next and here(cursor=page.next),
        rows_api=links.api("layers", unit.layer, "units", unit.channel, "patches"),
        rows_query=links.at("", **query),
        preview=links.peak(page.rows[0].image_id, str(unit), _PREVIEW_PX) if page.rows else None,
        embed=here(embed=1),
        effective=field.effective if field.covers_input else None,
        first_labels=whole,
        standing_out=standing_out_labels(whole),
        ways=_ways(atlas, unit, address.count, query),
        visuals=unit_visuals(atlas, unit, computes),
    )


def _patch(links: Links, unit: UnitId, row: PatchRow, box: Box, look: str, size: int = PATCH_PX) -> Patch:
    picture = links.peak(row.image_id, str(unit), size, _LOOKS[look])
    return Patch(row, picture, links.image(row.image_id, spot=box_text(box)))


def unit_strip(atlas: Atlas, unit: UnitId, rows: Sequence[PatchRow]) -> PatchStrip:
    """Return patches of a unit in a line, small."""
    links, field = links_of(atlas), atlas.field(unit)
    patches = [_patch(links, unit, row, units.shown_box(field, row), "patch", _TILE_PX) for row in rows]
    return PatchStrip(unit, links.unit(*unit), patches)


def _band_count(image_count: int, band: tuple[float, float] | None) -> int:
    """Return how many images lie in a percentile band, near duplicates counted one by one."""
    first, last = rank_range(band, image_count)
    return max(0, last - first + 1)


def standing_out_labels(page: LabelPage) -> list[LabelRow]:
    """Return the labels of which a unit's first images have more than the corpus, beyond chance."""
    return [row for row in page.rows if row.lift_low > 1][:_NAMED]


def _ways(atlas: Atlas, unit: UnitId, count: int, query: dict[str, Value]) -> list[Way]:
    """Return how a page's patches are asked for elsewhere, and what else is made of the unit."""
    given = {name: value for name, value in query.items() if value}
    words = ["unitscope", "top", atlas.name, str(unit), "-k", str(count)]
    for name, value in given.items():
        words += [f"--{name}", str(value)]
    fields = "".join(f", {name}={str(value)!r}" for name, value in given.items())
    python = f"unitscope.open_atlas({atlas.name!r}).top({str(unit)!r}, k={count}{fields})"
    catalog = shlex.join(["unitscope", "catalog", atlas.name, "--out", "catalog.duckdb"])
    sql = f"-- in the file of {catalog}\nFROM top_patches('{unit.layer}', {unit.channel}, {count});"
    return [
        Way("command", shlex.join(words)),
        Way("Python", f"import unitscope\n\n{python}"),
        Way("SQL in DuckDB", sql),
        Way("optimise an input", shlex.join(["unitscope", "optimise", atlas.name, str(unit)])),
        Way("project its patches", shlex.join(["unitscope", "project", atlas.name, str(unit)])),
    ]


def _unless(value: str, default: str) -> str | None:
    return None if value == default else value


def _last_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
