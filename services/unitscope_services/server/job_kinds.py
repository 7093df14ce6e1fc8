"""What a job of each kind does: a question to an atlas whose answer is stored in it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unitscope_schemas.answers.jobs import CompareJob, OptimiseJob, ProjectJob, SimilarJob
from unitscope_schemas.progress import Tell
from unitscope_services.figures.project import project_units
from unitscope_services.queries.compare import check_compare, check_similar, compute_compare, compute_similar
from unitscope_services.queries.session import Session
from unitscope_services.queries.unit_selection import chosen_units


@dataclass(frozen=True)
class Kind:
    """How jobs of a kind run. Where a query names a second atlas, both functions get that one last."""

    check: Callable[..., object]
    """Called with atlas and query: raises what is wrong with it, before the job is taken."""
    run: Callable[..., Iterator[str]]
    """Called with atlas, query and `Tell`: does the work, yields the address of each result once it is stored, and
    skips what is stored already."""
    unit: str
    """What `Tell` counts."""
    about: Callable[[Any], str]
    """What a query asks about, in a few words."""


def _check_optimise(session: Session, query: OptimiseJob) -> None:
    # with torch, which a server does not wait for to start
    from unitscope_services.figures.optimise import optimise_plan

    optimise_plan(session, query)


def _optimise(session: Session, query: OptimiseJob, tell: Tell) -> Iterator[str]:
    from unitscope_services.figures.optimise import optimise

    return (row.url for row in optimise(session, query, tell))


def _check_project(session: Session, query: ProjectJob) -> None:
    chosen_units(session.atlas, query.units, query.top)


def _check_similar(session: Session, query: SimilarJob) -> None:
    check_similar(session.atlas, query)


def _check_compare(session: Session, query: CompareJob, other: Session) -> None:
    check_compare(session.atlas, query, other.atlas)


def _units(query: OptimiseJob | ProjectJob) -> str:
    return ", ".join(query.units)


def _sides(query: CompareJob) -> str:
    layers = " with ".join(dict.fromkeys(filter(None, (query.layer, query.layer_b))))
    return f"{query.atlas} with {query.other}{f' ({layers})' if layers else ''}"


KINDS: Mapping[str, Kind] = {
    "optimise": Kind(
        check=_check_optimise,
        run=_optimise,
        unit="steps",
        about=_units,
    ),
    "project": Kind(
        check=_check_project,
        run=lambda session, query, tell: (row.url for row in project_units(session, query, tell)),
        unit="units",
        about=_units,
    ),
    "similar": Kind(
        check=_check_similar,
        run=lambda session, query, tell: compute_similar(session.atlas, query, tell),
        unit="blocks of units",
        about=lambda query: str(query.unit),
    ),
    "compare": Kind(
        check=_check_compare,
        run=lambda session, query, tell, other: compute_compare(session.atlas, query, tell, other.atlas),
        unit="blocks of units",
        about=_sides,
    ),
}
