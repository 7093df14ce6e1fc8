"""Pictures of many units are made on Ray: what is stored is not made again, so a killed run goes on where it was."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from unitscope_pipelines.cluster.resources import resources
from unitscope_pipelines.cluster.session import connected
from unitscope_pipelines.cluster.workers import each
from unitscope_pipelines.derived.optimise import OptimisePlan, Optimiser
from unitscope_pipelines.derived.project import ProjectPlan, UnitExemplars, planned_projector
from unitscope_pipelines.vision.recording.device import settle_process
from unitscope_schemas.answers.visuals import Visual
from unitscope_schemas.progress import Progress, Report, Stage
from unitscope_schemas.units import Target

Item = TypeVar("Item")
Plan = TypeVar("Plan")
Task = TypeVar("Task")


def optimise_units(
    plan: OptimisePlan, units: Sequence[Target], report: Report, workers: int | None = None, address: str | None = None
) -> Iterator[Visual]:
    """Make pictures of these units or of a direction; stored ones come first, the others as workers finish them."""

    def alone(unit: Target) -> list[Visual]:
        return Optimiser(plan)(unit, lambda done, total: report(Progress("optimise", done, total, "steps")))

    work = _Work("optimise", plan.device, plan.stored, partial(_settled, Optimiser, plan), alone)
    yield from _each(work, units, report, workers, address)


def project_units(
    plan: ProjectPlan,
    units: Sequence[UnitExemplars],
    report: Report,
    workers: int | None = None,
    address: str | None = None,
) -> Iterator[Visual]:
    """Make the projections of these units' exemplars; stored ones come first, the others as workers finish them."""
    work = _Work(
        "project", plan.device, plan.stored, partial(_settled, planned_projector, plan), planned_projector(plan)
    )
    yield from _each(work, units, report, workers, address)


@dataclass(frozen=True)
class _Work(Generic[Item]):
    """How pictures of items are made, and where they are stored."""

    stage: Stage
    device: str
    stored: Callable[[Item], list[Visual] | None]
    make: Callable[[], Callable[[Item], list[Visual]]]
    """Function that makes the task in a worker process."""
    alone: Callable[[Item], list[Visual]]
    """Function that makes a single item's pictures in this process, as a cluster takes longer to start."""


def _each(
    work: _Work[Item], items: Sequence[Item], report: Report, workers: int | None, address: str | None
) -> Iterator[Visual]:
    """Yield the pictures of all items: those that are stored first, the others as they are made."""
    stored = {item: visuals for item in items if (visuals := work.stored(item)) is not None}
    for visuals in stored.values():
        yield from visuals
    pending = [item for item in dict.fromkeys(items) if item not in stored]
    total, nodes = len(stored) + len(pending), Counter[str]()
    report(Progress(work.stage, len(stored), total, "units"))
    if len(pending) <= 1 and address is None:
        for item in pending:
            yield from work.alone(item)
        return
    with connected(address):
        for done in each(work.make, pending, resources(workers, work.device)):
            yield from done.result
            nodes[done.node] += 1
            report(Progress(work.stage, len(stored) + nodes.total(), total, "units", dict(nodes)))


def _settled(make: Callable[[Plan], Task], plan: Plan) -> Task:
    """Make a task in a worker process that is set up for it."""
    settle_process()
    return make(plan)
