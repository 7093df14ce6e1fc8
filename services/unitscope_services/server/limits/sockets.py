"""Open live pages: so many in all, and so many of one reader."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from unitscope_schemas.errors import OverloadError
from unitscope_services.server.settings import Settings


class Sockets:
    """The live pages of one process. Where rates are limited, one key or address may hold half of them."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.live_at_once
        self._most_each = max(1, self._most // 2) if settings.requests_per_s else self._most
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    @contextmanager
    def place(self, account: str) -> Iterator[None]:
        """Hold one of the places within the context; raises OverloadError where there is none."""
        with self._lock:
            if self._open.total() >= self._most:
                raise OverloadError(f"{self._most} live pages are open, more are not let in; try again in a moment")
            if self._open[account] >= self._most_each:
                raise OverloadError(f"{self._most_each} live pages are open from here, which is a reader's share")
            self._open[account] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[account] -= 1
                self._open += Counter()  # forgets who has none
