"""Parts of a unit's page that take longer than the page itself, each with an address of its own, and several units side
by side."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from unitscope_schemas.addresses import without_paths
from unitscope_schemas.answers.patches import LabelPage, LabelRow, UnitRow
from unitscope_schemas.answers.relations import FacetPage, FacetRow, SimilarPage, SimilarRow
from unitscope_schemas.answers.served import AtlasRow
from unitscope_schemas.errors import UnitscopeError, UsageError
from unitscope_schemas.questions import (
    FacetsQuestion,
    HistogramQuestion,
    LabelsQuestion,
    Likeness,
    Order,
    SimilarQuestion,
    TopQuestion,
)
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.pages.charts import Chart, histogram_chart
from unitscope_services.pages.pages import PATCHES, standing_out_labels, unit_strip
from unitscope_services.pages.views import Choice, PatchStrip
from unitscope_services.queries import units
from unitscope_services.queries.exemplars import patches, status_note
from unitscope_services.queries.facets import LEAST_SILHOUETTE, facets
from unitscope_services.queries.labels import labels
from unitscope_services.queries.session import Session
from unitscope_services.queries.similar import is_computed, similar
from unitscope_services.server.links import Links, links_of

_SIMILAR, _PATCHES, _IN_BAND = 9, 3, 6
_LABELS = 5
FEWEST_BESIDE, MOST_BESIDE = 2, 12
"""Units that may be seen side by side."""
_METHODS: Mapping[Likeness, str] = {
    "coactivation": "co-activation",
    "exemplars": "shared exemplars",
    "weights": "incoming weights",
}
_BANDS: tuple[tuple[str, tuple[float, float] | None, Order], ...] = (
    ("highest", None, "desc"),
    ("90 – 99 %", (0.9, 0.99), "random"),
    ("50 – 90 %", (0.5, 0.9), "random"),
    ("10 – 50 %", (0.1, 0.5), "random"),
    ("0 – 10 %", (0.0, 0.1), "random"),
    ("lowest", None, "asc"),
)


@dataclass(frozen=True)
class UnitPart:
    """The unit that a part of a page belongs to."""

    atlas: AtlasRow
    links: Links
    unit: UnitId
    page_href: str

    @classmethod
    def of(cls, atlas: Atlas, unit: UnitId) -> "UnitPart":
        """Return the head of a part of a unit's page."""
        links = links_of(atlas)
        return cls(atlas.summary(), links, unit, links.unit(*unit))


@dataclass(frozen=True)
class SimilarUnit:
    """A unit like the one asked about, with its first patches."""

    row: SimilarRow
    strip: PatchStrip


@dataclass(frozen=True)
class SimilarView:
    """The units most like a unit by one method.

    `page` is None where this is not computed yet or not possible, which `note` says; `asks` is where a form has it
    computed, None where there is nothing to compute or the reader may not.
    """

    part: UnitPart
    by: Likeness
    method: str
    among: str
    layers: list[str]
    tabs: list[Choice]
    page: SimilarPage | None
    note: str | None
    units: list[SimilarUnit]
    asks: str | None
    beside: str
    """Address of a page of several units side by side."""
    command: str
    rows_api: str
    rows_query: str


@dataclass(frozen=True)
class UnitColumn:
    """A unit among others, with its first patches, its distribution and the labels of its first images."""

    strip: PatchStrip
    unit: UnitRow
    note: str | None
    chart: Chart | None
    first_labels: LabelPage
    standing_out: list[LabelRow]
    row_api: str
    without: str | None
    """Address of the page without this unit, None where too few would be left."""


@dataclass(frozen=True)
class UnitsView:
    """Several units side by side."""

    atlas: AtlasRow
    links: Links
    columns: list[UnitColumn]
    command: str


@dataclass(frozen=True)
class Facet:
    """Some of the exemplars that a facet holds, and how many it holds."""

    number: int
    share: float
    count: int
    strip: PatchStrip


@dataclass(frozen=True)
class FacetsView:
    """A unit's first exemplars in facets."""

    part: UnitPart
    page: FacetPage
    least_silhouette: float
    facets: list[Facet]
    command: str
    rows_api: str


@dataclass(frozen=True)
class Band:
    """A few patches from one part of a unit's distribution, and the address of all of them."""

    name: str
    href: str
    strip: PatchStrip


@dataclass(frozen=True)
class BandsView:
    """A unit's distribution in examples."""

    part: UnitPart
    note: str | None
    bands: list[Band]
    command: str


def similar_view(session: Session, unit: UnitId, by: Likeness | None, among: str | None, computes: bool) -> SimilarView:
    """Return the units of a layer, its own unless another is named, most like a unit by one method.

    Without a method it is co-activation where that is computed, else shared exemplars, which cost nothing ahead.
    """
    atlas, part = session.atlas, UnitPart.of(session.atlas, unit)
    atlas.unit(unit)
    other = atlas.layer(among or unit.layer).spec.name
    among = None if other == unit.layer else other
    computed = is_computed(atlas, unit.layer, other)
    chosen: Likeness = by or ("coactivation" if computed else "exemplars")
    missing = chosen == "coactivation" and not computed
    page, note = (None, None) if missing else _similar(session, unit, chosen, among)
    address = part.links.part(*unit, "similar")
    query = {"by": chosen, "among": among}
    return SimilarView(
        part=part,
        by=chosen,
        method=_METHODS[chosen],
        among=other,
        layers=[entry.spec.name for entry in atlas.manifest.layers],
        tabs=[
            Choice(text, part.links.at(address, by=name, among=among), name == chosen)
            for name, text in _METHODS.items()
            if computes or name != "weights"
        ],
        page=page,
        note=note,
        units=[SimilarUnit(row, _strip(atlas, UnitId(row.layer, row.channel))) for row in page.rows] if page else [],
        asks=address if missing and computes else None,
        beside=part.links.beside(),
        command=_similar_command(atlas, unit, chosen, among),
        rows_api="" if page is None else part.links.api("layers", unit.layer, "units", unit.channel, "similar"),
        rows_query=part.links.at("", **query),
    )


def units_view(atlas: Atlas, names: Sequence[str]) -> UnitsView:
    """Return units side by side, in the order of their names `LAYER:UNIT`, each once.

    Raises UsageError for fewer than 2 or more than 12, NotFoundError for a unit that is not in the atlas.
    """
    shown = list(dict.fromkeys(UnitId.parse(name) for name in names))
    if not FEWEST_BESIDE <= len(shown) <= MOST_BESIDE:
        wanted = f"{FEWEST_BESIDE} to {MOST_BESIDE} units stand side by side"
        raise UsageError(f"{wanted}, not {len(shown)}: give each as u=LAYER:UNIT, for example u=layer4.1:130")
    for unit in shown:
        atlas.unit(unit)
    words = (["unitscope", "top", atlas.name, str(unit)] for unit in shown)
    return UnitsView(
        atlas=atlas.summary(),
        links=links_of(atlas),
        columns=[_column(atlas, unit, [other for other in shown if other != unit]) for unit in shown],
        command=" && ".join(map(shlex.join, words)),
    )


def _column(atlas: Atlas, unit: UnitId, others: Sequence[UnitId]) -> UnitColumn:
    links, statistics = links_of(atlas), atlas.unit(unit)
    first_labels = labels(atlas, unit, LabelsQuestion(k=_LABELS))
    return UnitColumn(
        strip=unit_strip(atlas, unit, patches(atlas, unit, TopQuestion(k=PATCHES)).rows),
        unit=units.unit_row(unit.layer, statistics),
        note=status_note(statistics),
        chart=histogram_chart(units.histogram(atlas, unit, HistogramQuestion())),
        first_labels=first_labels,
        standing_out=standing_out_labels(first_labels),
        row_api=links.api("layers", unit.layer, "units", unit.channel),
        without=links.beside(others) if len(others) >= FEWEST_BESIDE else None,
    )


def facets_view(session: Session, unit: UnitId) -> FacetsView:
    """Return a unit's first exemplars in groups that look alike."""
    atlas, part, page = session.atlas, UnitPart.of(session.atlas, unit), facets(session, unit, FacetsQuestion())
    groups = []
    for number, rows in groupby(page.rows, key=lambda row: row.facet):
        members: list[FacetRow] = list(rows)
        groups.append(Facet(number, members[0].share, len(members), unit_strip(atlas, unit, members[:_IN_BAND])))
    return FacetsView(
        part=part,
        page=page,
        least_silhouette=LEAST_SILHOUETTE,
        facets=groups,
        command=shlex.join(["unitscope", "facets", atlas.name, str(unit)]),
        rows_api=part.links.api("layers", unit.layer, "units", unit.channel, "facets"),
    )


def bands_view(atlas: Atlas, unit: UnitId) -> BandsView:
    """Return a few patches from every part of a unit's distribution, from its highest peaks to its lowest."""
    part, statistics, bands = UnitPart.of(atlas, unit), atlas.unit(unit), []
    for name, band, order in _BANDS:
        rows = patches(atlas, unit, TopQuestion(k=_IN_BAND, quantile=band, order=order)).rows
        text = None if band is None else f"{band[0]:g}..{band[1]:g}"
        query = {"quantile": text, "order": None if order == "desc" else order}
        negative = name == "lowest" and statistics.minimum is not None and statistics.minimum < 0
        if rows:
            href, strip = part.links.unit(*unit, query), unit_strip(atlas, unit, rows)
            bands.append(Band("most negative" if negative else name, href, strip))
    return BandsView(
        part=part,
        note=status_note(statistics),
        bands=bands,
        command=shlex.join(["unitscope", "top", atlas.name, str(unit), "--bands", "10", "-k", "3"]),
    )


def _similar(session: Session, unit: UnitId, by: Likeness, among: str | None) -> tuple[SimilarPage | None, str | None]:
    """Return the answer, or why there is none: only some layers have weights of their own, and not everybody their
    model."""
    try:
        page = similar(session, unit, SimilarQuestion(by=by, among=among, k=_SIMILAR))
    except UnitscopeError as error:
        if error.http_status >= 500:
            raise
        return None, without_paths(str(error))
    return page, None if page.rows else "Nothing to compare: the unit's peaks are all equal, or its weights are 0."


def _strip(atlas: Atlas, unit: UnitId) -> PatchStrip:
    return unit_strip(atlas, unit, patches(atlas, unit, TopQuestion(k=_PATCHES)).rows)


def _similar_command(atlas: Atlas, unit: UnitId, by: Likeness, among: str | None) -> str:
    words = ["unitscope", "similar", atlas.name, str(unit)]
    words += [] if by == "coactivation" else ["--by", by]
    return shlex.join([*words, *(["--layer", among] if among else [])])
