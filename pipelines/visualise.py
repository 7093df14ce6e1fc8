"""Pictures of many units on Ray: what is stored is not made again, so a killed run goes on where it was."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

from pipelines import cluster
from pipelines.optimised import OptimisePlan, Optimiser
from pipelines.plan import Progress, Report
from pipelines.vision.device import settle_process
from schemas.units import UnitId
from schemas.visuals import Visual


def optimise_units(
    plan: OptimisePlan, units: Sequence[UnitId], report: Report, workers: int | None = None, address: str | None = None
) -> Iterator[Visual]:
    """Pictures of these units, those that are stored already first, the others as workers finish them."""
    stored = {unit: found for unit in units if (found := plan.stored(unit)) is not None}
    for visuals in stored.values():
        yield from visuals
    pending = [unit for unit in dict.fromkeys(units) if unit not in stored]
    report(Progress("optimise", len(stored), len(stored) + len(pending), "units"))
    if len(pending) <= 1 and address is None:
        for unit in pending:  # a cluster takes longer to start
            yield from Optimiser(plan)(unit, lambda done, total: report(Progress("optimise", done, total, "steps")))
        return
    nodes = Counter[str]()
    with cluster.connected(address):
        for done in cluster.each(partial(_optimiser, plan), pending, cluster.resources(workers, plan.device)):
            yield from done.result
            nodes[done.node] += 1
            finished = len(stored) + nodes.total()
            report(Progress("optimise", finished, len(stored) + len(pending), "units", dict(nodes)))


def _optimiser(plan: OptimisePlan) -> Optimiser:
    settle_process()
    return Optimiser(plan)
