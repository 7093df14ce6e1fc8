"""What each kind of question may cost: how many run and wait at once, how long each may wait and run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from unitscope_services.atlas.deadlines import question_limit
from unitscope_services.server.limits.admission import Admission
from unitscope_services.server.limits.memory import MemoryFloor
from unitscope_services.server.limits.priority import give_way
from unitscope_services.server.limits.rates import Rates
from unitscope_services.server.settings import Settings

Kind = Literal["quick", "read", "scan", "picture", "sheet", "compute", "eigen", "weights", "facets", "exact", "batch"]
"""Kind of question, by what it costs: each has turns of its own, so that no kind keeps another waiting."""


@dataclass(frozen=True)
class Cost:
    """How many questions of a kind run at once and how many more wait; seconds that each may wait and run; what would
    do where one takes longer."""

    running: int
    waiting: int
    wait_s: float
    run_s: float
    advice: str


_LATER = "ask again later"
COSTS: Mapping[Kind, Cost] = {
    # Answers of milliseconds: one uses the interpreter while another is at the database. When all threads made some,
    # each took turns nine times, and 50 clients got 0.8 of one client's throughput.
    "quick": Cost(2, 62, 10, 5, f"ask for fewer rows, or {_LATER}"),
    "read": Cost(4, 60, 10, 10, f"ask for fewer rows, or {_LATER}"),
    # All ranks of a unit, or the peaks of every image.
    "scan": Cost(2, 30, 20, 15, "ask for one layer, fewer rows or no conditions, or use the command line"),
    # Pages of a hundred thumbnails come over a few connections; 150 MB each at the limit of pixels.
    "picture": Cost(4, 60, 20, 15, f"ask for a smaller picture, or {_LATER}"),
    # 256 pictures are decoded for one, each in a turn of `picture`.
    "sheet": Cost(2, 14, 30, 60, f"ask for single pictures, or {_LATER}"),
    # Forwards besides have their own gate, with live frames and jobs. The first one loads the model, which takes long
    # on a machine that is busy.
    "compute": Cost(2, 14, 30, 60, "ask for fewer images (k), or start a job"),
    # 64 pictures are decoded for one, each in a turn of `picture`: among 50 clients that may take half a minute.
    "eigen": Cost(1, 5, 30, 60, "ask for fewer patches (k) or a smaller size"),
    # The first one loads the model.
    "weights": Cost(1, 7, 30, 60, "ask for single units, or use the command line"),
    "facets": Cost(1, 7, 30, 20, "ask for fewer exemplars (k)"),
    "exact": Cost(1, 7, 30, 30, "ask the index instead (exact=false), or without conditions"),
    "batch": Cost(1, 3, 30, 60, "ask for fewer vectors and uploads at once"),
}
"""Cost of every kind; a server of a setting of its own has that instead (`costs_of`)."""
FORWARD_WAIT_S = 30.0
"""Most seconds that a question waits for its forward."""
_CHEAP: frozenset[Kind] = frozenset(("quick", "read"))
"""Kinds that hold no more than some rows in memory."""


def costs_of(settings: Settings) -> Mapping[Kind, Cost]:
    """Return the cost of every kind where settings say some of it."""
    return {**COSTS, "picture": replace(COSTS["picture"], running=settings.pictures_at_once)}


class Turns:
    """The turns of all kinds: who has one may work for as long as its kind may, in memory that is there."""

    def __init__(self, costs: Mapping[Kind, Cost], floor: MemoryFloor, rates: Rates) -> None:
        self._costs, self._floor, self._rates = costs, floor, rates
        self._gates = {
            kind: Admission(cost.running, cost.waiting, wait_s=cost.wait_s, what=f"questions of the kind {kind}")
            for kind, cost in costs.items()
        }

    @property
    def most_present(self) -> int:
        """Count of questions that may have or wait for a turn, all kinds together."""
        return sum(cost.running + cost.waiting for cost in self._costs.values())

    @contextmanager
    def of(self, kind: Kind, account: str | None = None) -> Iterator[None]:
        """Wait for a turn and work within it, on the account of an `account`, if one is known.

        Raises OverloadError where too many wait, the wait is too long or the account had more than its share, BusyError
        where memory is short. Work that takes too long is stopped at its next step with BusyError.
        """
        cost = self._costs[kind]
        give_way()
        self._rates.begin_work(account)
        if kind not in _CHEAP:
            self._floor.check()
        with self._gates[kind].turn(), question_limit(cost.run_s, cost.advice), self._rates.working(account):
            yield
