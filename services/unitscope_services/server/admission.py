"""Admission of requests: how many of a costly kind may run or wait at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unitscope_schemas.errors import OverloadError


class Admission:
    """A gate that lets `running` callers in at once and `waiting` more queue; the next are refused.

    `tell` hears how many there are, each time that changes.
    """

    def __init__(self, running: int, waiting: int, tell: Callable[[int], object] = lambda present: None) -> None:
        self._slots = threading.Semaphore(running)
        self._lock = threading.Lock()
        self._most, self._tell = running + waiting, tell
        self.present = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a slot; raises OverloadError at once if too many wait already."""
        with self._lock:
            if self.present >= self._most:
                raise OverloadError(f"{self.present} forwards run or wait already; ask again in a moment")
            self.present += 1
            self._tell(self.present)
        try:
            with self._slots:
                yield
        finally:
            with self._lock:
                self.present -= 1
                self._tell(self.present)
