"""Rates: how many requests, and how much work, each key or address may ask for."""

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unitscope_schemas.errors import OverloadError
from unitscope_services.server.settings import Settings

_BURST_S = 10.0
"""Seconds of its rate that an account may send at once: a page with a hundred thumbnails comes at once."""
_WORK_SHARE, _WORK_BURST_S = 1.0, 60.0
"""Seconds of work that an account may cause each second, and at once."""
_GUESSES_PER_S, _GUESSES = 0.5, 30.0
"""Unknown keys that an address may send each second, and at once: 43,200 a day, of 2^256 that there are."""
_MOST_ACCOUNTS = 10_000
"""Accounts that are remembered, for some 150 bytes each; the one that was silent for longest is forgotten first."""


class Buckets:
    """A token bucket for each account: `per_s` tokens flow in each second, up to `burst`."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_s, self.burst, self._clock = per_s, burst, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._levels)

    def wait_s(self, account: str) -> float:
        """Return the seconds until the account has a token again, 0 if there is one."""
        with self._lock:
            missing = 1 - self._level(account)
        return max(0.0, missing / self.per_s)

    def take(self, account: str, tokens: float = 1.0) -> None:
        """Take tokens, also more than there are: the account then waits the longer."""
        with self._lock:
            self._levels[account] = self._level(account) - tokens, self._clock()
            self._levels.move_to_end(account)
            while len(self._levels) > _MOST_ACCOUNTS:
                self._levels.popitem(last=False)

    def _level(self, account: str) -> float:
        level, since = self._levels.get(account, (self.burst, 0.0))
        return min(self.burst, level + (self._clock() - since) * self.per_s)


class Rates:
    """The rates of one process: of requests, of work, and of unknown keys. A rate of 0 requests limits none of them but
    the last."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        per_s = settings.requests_per_s
        self._requests = Buckets(per_s, max(1.0, per_s * _BURST_S), clock) if per_s else None
        self._work = Buckets(_WORK_SHARE, _WORK_BURST_S, clock) if per_s else None
        self._guesses = Buckets(_GUESSES_PER_S, _GUESSES, clock)
        self._clock = clock

    def ask(self, account: str) -> None:
        """Count a request of an account; raises OverloadError with the seconds to wait."""
        if self._requests is None:
            return
        if wait_s := self._requests.wait_s(account):
            raise OverloadError(
                f"more than {self._requests.per_s:g} requests a second came from here; ask again in "
                f"{_whole(wait_s)} s, and for fewer things at once",
                retry_after_s=_whole(wait_s),
            )
        self._requests.take(account)

    def present_key(self, address: str) -> None:
        """Raise OverloadError where too many unknown keys came from an address: no key from there is looked at."""
        if wait_s := self._guesses.wait_s(address):
            raise OverloadError(
                f"too many unknown keys came from here; send a key again in {_whole(wait_s)} s",
                retry_after_s=_whole(wait_s),
            )

    def refuse_key(self, address: str) -> None:
        """Count an unknown key from an address."""
        self._guesses.take(address)

    def begin_work(self, account: str | None) -> None:
        """Raise OverloadError, with the seconds to wait, where an account caused more work than its share."""
        if self._work is not None and account is not None and (wait_s := self._work.wait_s(account)):
            raise OverloadError(
                f"what was asked from here took more than {_WORK_BURST_S:g} s of work; ask again in {_whole(wait_s)} s",
                retry_after_s=_whole(wait_s),
            )

    @contextmanager
    def working(self, account: str | None) -> Iterator[None]:
        """Count what the context takes as work of an account."""
        started = self._clock()
        try:
            yield
        finally:
            if self._work is not None and account is not None:
                self._work.take(account, self._clock() - started)


def account_at(host: str) -> str:
    """Return how a reader without a key is called: the address, or the /64 network of an IPv6 one, which is one
    household's."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return f"address {host}"
    if address.version == 4:
        return f"address {address}"
    if address.ipv4_mapped is not None:
        return f"address {address.ipv4_mapped}"
    return f"network {ipaddress.ip_network((address, 64), strict=False)}"


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))
