"""What the pages of two atlases compared show: which are compared, and unit by unit what was found."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unitscope_schemas.addresses import without_paths
from unitscope_schemas.answers.jobs import CompareJob, Job
from unitscope_schemas.answers.relations import ComparisonRow, MatchPage, MatchRow
from unitscope_schemas.answers.served import AtlasRow
from unitscope_schemas.errors import UnitscopeError
from unitscope_schemas.questions import ComparisonQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.pages.job_views import JobView, job_view
from unitscope_services.pages.pages import unit_strip
from unitscope_services.pages.views import Choice, PatchStrip
from unitscope_services.queries.compare import check_compare, comparison, comparisons
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session
from unitscope_services.server.atlas_registry import AtlasRegistry
from unitscope_services.server.job_registry import has_ended
from unitscope_services.server.links import Links, links_of

PAIRS = 24
"""Pairs of units on a page."""
_PATCHES = 4
_SORTS = {
    "channel": "by channel",
    "correlation": "differ most",
    "-correlation": "differ least",
    "-margin": "surest match",
    "margin": "least sure",
}
_SAME_SORTS = {"same_correlation": "differ most", "-same_correlation": "differ least"}
"""Sorts by the unit of the same channel instead of the best match."""


@dataclass(frozen=True)
class ComparisonAddress:
    """What the address of a comparison's page asks for."""

    layer: str | None = None
    sort: str = "channel"
    cursor: str | None = None


@dataclass(frozen=True)
class StoredComparison:
    """A stored comparison and its page."""

    atlas: str
    row: ComparisonRow
    href: str


@dataclass(frozen=True)
class ChoiceView:
    """The atlases to choose from and, for two that are chosen, what there is to do.

    `is_pair`: it is known which layers. `refusal`: why they cannot be compared. `job`: one that compares them now.
    `asks`: whether the reader may have them compared here.
    """

    atlases: list[AtlasRow]
    a: str
    b: str
    layer: str | None
    layer_b: str | None
    layers_a: list[str]
    layers_b: list[str]
    is_pair: bool
    refusal: str | None
    job: JobView | None
    asks: bool
    command: str
    stored: list[StoredComparison]


@dataclass(frozen=True)
class Pair:
    """A unit of the first atlas beside one of the second: its best match, or the unit of the same channel.

    `other_id` is None where it has no match, `other_strip` where the second atlas is not served in this version.
    """

    row: MatchRow
    strip: PatchStrip
    other_id: UnitId | None
    other_strip: PatchStrip | None
    correlation: float | None
    overlap: float | None
    runner_up: UnitId | None


@dataclass(frozen=True)
class ComparisonView:
    """A stored comparison, unit by unit.

    `layer`: the only one whose units are shown, if one is chosen; `same`: units of the same channel are shown.
    """

    atlas: AtlasRow
    links: Links
    page: MatchPage
    pairs: list[Pair]
    same: bool
    is_served: bool
    layer: str | None
    layer_links: dict[str, str]
    every_layer: str
    sorts: list[Choice]
    same_sorts: list[Choice]
    following: str | None
    rows_api: str
    rows_query: str
    again: str
    command: str


def choice_view(
    atlas_registry: AtlasRegistry, jobs: Sequence[Job], a: str | None, query: CompareJob | None, asks: bool
) -> ChoiceView:
    """Return the form that chooses two atlases; with a `query` what can be done about them.

    `jobs`: those that the reader may see. Raises NotFoundError for an atlas that is not served, or a layer that is
    not there.
    """
    names = atlas_registry.names
    first = a or next(iter(names), "")
    other = query.other if query else next((name for name in names if name != first), first)
    layers_a, layers_b = (_layers(atlas_registry, first), _layers(atlas_registry, other)) if query else ([], [])
    layer, layer_b = (query.layer, query.layer_b) if query else (None, None)
    all_of_one_name = first != other and not set(layers_a).isdisjoint(layers_b)
    is_pair = query is not None and (layer is not None or all_of_one_name)
    return ChoiceView(
        atlases=[atlas_registry.newest(name).atlas.summary() for name in names],
        a=first,
        b=other,
        layer=layer,
        layer_b=layer_b,
        layers_a=layers_a,
        layers_b=layers_b,
        is_pair=is_pair,
        refusal=_refusal(atlas_registry.newest(first), query, atlas_registry.newest(other))
        if is_pair and query
        else None,
        job=_running(jobs, query) if asks and query else None,
        asks=asks,
        command=_command(first, other, layer, layer_b),
        stored=[stored for name in names for stored in _stored_comparisons(atlas_registry.newest(name))],
    )


def comparison_view(
    session: Session, atlas_registry: AtlasRegistry, identifier: str, address: ComparisonAddress
) -> ComparisonView:
    """Return a stored comparison, unit by unit; raises NotFoundError, UsageError for an unknown sort."""
    layer, sort = address.layer, address.sort
    question = ComparisonQuestion(layer=layer, sort=sort, k=PAIRS, cursor=address.cursor)
    page = comparison(session.atlas, identifier, question)
    links, same = links_of(session.atlas), sort.removeprefix("-").startswith("same_")
    query: dict[str, str | None] = {"layer": layer, "sort": None if sort == "channel" else sort}
    other = atlas_registry.newest(page.b.name) if page.b.name in atlas_registry.names else None
    if other is not None and other.atlas.version != page.b.version:
        other = None

    def here(**changed: str | None) -> str:
        return links.comparison(identifier, **{**query, **changed})

    same_size = any(pair.same_share is not None for pair in page.layers)
    pair = page.layers[0] if len(page.layers) == 1 else None
    return ComparisonView(
        atlas=session.atlas.summary(),
        links=links,
        page=page,
        pairs=[_pair(session, other, row, same) for row in page.rows],
        same=same,
        is_served=other is not None,
        layer=layer,
        layer_links={pair.layer: here(layer=pair.layer) for pair in page.layers},
        every_layer=here(layer=None),
        sorts=_choices(_SORTS, sort, here),
        same_sorts=_choices(_SAME_SORTS, sort, here) if same_size else [],
        following=page.next and here(cursor=page.next),
        rows_api=links.api("comparisons", identifier),
        rows_query=links.at("", **query),
        again=links.compare,
        command=_command(page.a.name, page.b.name, *((pair.layer, pair.layer_b) if pair else (None, None))),
    )


def _pair(session: Session, other: Session | None, row: MatchRow, same: bool) -> Pair:
    runner_up = row.runner_up
    channel = row.channel if same else row.match
    known = row.same_correlation is not None if same else channel is not None
    beside = UnitId(row.layer_b, channel) if known and channel is not None else None
    return Pair(
        row=row,
        strip=_strip(session, UnitId(row.layer, row.channel)),
        other_id=beside,
        other_strip=_strip(other, beside) if other and beside else None,
        correlation=row.same_correlation if same else row.correlation,
        overlap=row.same_overlap if same else row.overlap,
        runner_up=None if same or runner_up is None else UnitId(row.layer_b, runner_up),
    )


def _strip(session: Session, unit: UnitId) -> PatchStrip:
    return unit_strip(session.atlas, unit, patches(session.atlas, unit, TopQuestion(k=_PATCHES)).rows)


def _choices(sorts: dict[str, str], current: str, here: Callable[..., str]) -> list[Choice]:
    return [
        Choice(text, here(sort=None if name == "channel" else name), name == current) for name, text in sorts.items()
    ]


def _layers(atlas_registry: AtlasRegistry, name: str) -> list[str]:
    return [entry.spec.name for entry in atlas_registry.newest(name).atlas.manifest.layers]


def _refusal(session: Session, query: CompareJob, other: Session) -> str | None:
    try:
        check_compare(session.atlas, query, other.atlas)
    except UnitscopeError as error:
        return without_paths(str(error))
    return None


def _running(jobs: Sequence[Job], query: CompareJob) -> JobView | None:
    """Return a job that has not ended and answers the same question."""
    return next((job_view(job) for job in jobs if job.query == query and not has_ended(job)), None)


def _stored_comparisons(session: Session) -> list[StoredComparison]:
    atlas = session.atlas
    return [StoredComparison(atlas.name, row, links_of(atlas).comparison(row.id)) for row in comparisons(atlas).rows]


def _command(a: str, b: str, layer: str | None, layer_b: str | None) -> str:
    words = ["unitscope", "compare", a, b]
    words += ["--layer", layer] if layer else []
    words += ["--layer-b", layer_b] if layer_b and layer_b != layer else []
    return shlex.join(words)
