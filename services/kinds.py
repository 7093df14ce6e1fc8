"""What a job of each kind does: a question to an atlas whose answer is stored in it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.jobs import OptimiseJob, ProjectJob
from services.chosen import chosen_units
from services.optimising import optimise, optimise_plan
from services.projections import project_units
from services.subjects import Asked

Tell = Callable[[int, int], None]
"""Told how much is done, of how much; what it raises ends the job."""


@dataclass(frozen=True)
class Kind:
    """How jobs of a kind run."""

    check: Callable[[Asked, Any], object]
    """Raises what is wrong with a query, before the job is taken."""
    run: Callable[[Asked, Any, Tell], Iterator[str]]
    """Does the work; yields the address of each result once it is stored, and skips what is stored already."""
    unit: str
    """What `Tell` counts."""


def _check_optimise(asked: Asked, query: OptimiseJob) -> None:
    optimise_plan(asked, query)


def _check_project(asked: Asked, query: ProjectJob) -> None:
    chosen_units(asked.atlas, query.units, query.top)


KINDS: Mapping[str, Kind] = {
    "optimise": Kind(
        check=_check_optimise,
        run=lambda asked, query, tell: (row.url for row in optimise(asked, query, tell)),
        unit="steps",
    ),
    "project": Kind(
        check=_check_project,
        run=lambda asked, query, tell: (row.url for row in project_units(asked, query, tell)),
        unit="units",
    ),
}
