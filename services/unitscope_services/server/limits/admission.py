"""Admission of requests: how many of a costly kind may run or wait at once, and for how long."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from unitscope_schemas.errors import OverloadError

_patient: ContextVar[bool] = ContextVar("patient", default=False)


@contextmanager
def patience() -> Iterator[None]:
    """Make turns within the context wait as long as it takes: a job has nobody who waits for its answer."""
    token = _patient.set(True)
    try:
        yield
    finally:
        _patient.reset(token)


class Admission:
    """A gate that lets `running` callers in at once and `waiting` more queue, each for `wait_s` at most.

    The next are refused. `what` names in messages what they wait for; `tell` hears how many there are, each time that
    changes.
    """

    def __init__(
        self,
        running: int,
        waiting: int,
        tell: Callable[[int], object] = lambda present: None,
        wait_s: float | None = None,
        what: str = "forwards",
    ) -> None:
        self._slots = threading.Semaphore(running)
        self._lock = threading.Lock()
        self._most, self._tell, self._wait_s, self._what = running + waiting, tell, wait_s, what
        self.present = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a slot; raises OverloadError at once if too many wait already, or after `wait_s`."""
        patient = _patient.get()
        with self._lock:
            if self.present >= self._most and not patient:
                raise OverloadError(f"{self.present} {self._what} run or wait already; ask again in a moment")
            self.present += 1
            self._tell(self.present)
        try:
            if not self._slots.acquire(timeout=None if patient else self._wait_s):
                raise OverloadError(f"no turn came within {self._wait_s:g} s: {self._what} take long; ask again later")
            try:
                yield
            finally:
                self._slots.release()
        finally:
            with self._lock:
                self.present -= 1
                self._tell(self.present)
