"""What a job of each kind does: it puts a question to an atlas that stores the answer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unitscope_schemas.answers.jobs import CompareJob, OptimiseJob, ProjectJob, SimilarJob
from unitscope_schemas.answers.visuals import VisualRow
from unitscope_schemas.progress import Tell
from unitscope_schemas.units import UnitId, parse_target
from unitscope_services.figures.project import project_units
from unitscope_services.queries.compare import check_compare, check_correlate, compare_here, correlate
from unitscope_services.queries.session import Session
from unitscope_services.queries.unit_selection import chosen_units
from unitscope_services.server.links import links_of


@dataclass(frozen=True)
class JobKind:
    """The way jobs of a kind run. Where a query names a second atlas, both functions get that one last."""

    check: Callable[..., object]
    """Function that is called with atlas and query before the job is taken, and raises what is wrong with the query."""
    run: Callable[..., Iterator[str]]
    """Function that is called with atlas, query and `Tell`: does the work, yields the address of each result once it is
    stored, and skips what is stored already."""
    unit: str
    """Name of the steps that `Tell` counts."""
    about: Callable[[Any], str]
    """Text in a few words on what a query is about."""


def _check_optimise(session: Session, query: OptimiseJob) -> None:
    # with torch, which a server does not wait for to start
    from unitscope_services.figures.optimise import optimise_plan

    optimise_plan(session, query.units, query)


def _optimise(session: Session, query: OptimiseJob, tell: Tell) -> Iterator[str]:
    from unitscope_services.figures.optimise import optimise

    return (_address(session, row) for row in optimise(session, query.units, query, tell))


def _project(session: Session, query: ProjectJob, tell: Tell) -> Iterator[str]:
    return (_address(session, row) for row in project_units(session, query.units, query, tell))


def _similar(session: Session, query: SimilarJob, tell: Tell) -> Iterator[str]:
    unit = UnitId.parse(query.unit)
    correlate(session.atlas, unit.layer, query, tell)
    yield links_of(session.atlas).api("layers", unit.layer, "units", unit.channel, "similar", among=query.among)


def _compare(session: Session, query: CompareJob, tell: Tell, other: Session) -> Iterator[str]:
    comparison = compare_here(session.atlas, query, tell, other.atlas)
    yield links_of(session.atlas).api("comparisons", comparison.id)


def _address(session: Session, row: VisualRow) -> str:
    return links_of(session.atlas).visual(parse_target(row.unit), row.id)


def _check_project(session: Session, query: ProjectJob) -> None:
    chosen_units(session.atlas, query.units, query.top)


def _check_similar(session: Session, query: SimilarJob) -> None:
    unit = UnitId.parse(query.unit)
    session.atlas.unit(unit)
    check_correlate(session.atlas, unit.layer, query)


def _check_compare(session: Session, query: CompareJob, other: Session) -> None:
    check_compare(session.atlas, query, other.atlas)


def _units(query: OptimiseJob | ProjectJob) -> str:
    return ", ".join(query.units)


def _sides(query: CompareJob) -> str:
    layers = " with ".join(dict.fromkeys(filter(None, (query.layer, query.layer_b))))
    return f"{query.atlas} with {query.other}{f' ({layers})' if layers else ''}"


KINDS: Mapping[str, JobKind] = {
    "optimise": JobKind(
        check=_check_optimise,
        run=_optimise,
        unit="steps",
        about=_units,
    ),
    "project": JobKind(
        check=_check_project,
        run=_project,
        unit="units",
        about=_units,
    ),
    "similar": JobKind(
        check=_check_similar,
        run=_similar,
        unit="blocks of units",
        about=lambda query: str(query.unit),
    ),
    "compare": JobKind(
        check=_check_compare,
        run=_compare,
        unit="blocks of units",
        about=_sides,
    ),
}
