"""A signal whose exception was dropped stops the work at its next step all the same."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from pipelines.plan import Progress
from unitscope import stopping
from unitscope.progress import shown


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stopping.listen()
    yield
    stopping.listen()  # forgets what it heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_within_a_destructor_stops_at_the_next_progress(
    number: signal.Signals, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    dropped = list[type[BaseException]]()
    monkeypatch.setattr(sys, "unraisablehook", lambda told: dropped.append(told.exc_type))
    with shown("none") as tell:
        tell(Progress("scan", 0, 2, "shards"))
        Interrupted()
        assert dropped == [kind]
        with pytest.raises(kind):
            tell(Progress("scan", 1, 2, "shards"))


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping.listen()
    os.kill(os.getpid(), signal.SIGINT)
    stopping.stop_if_wished()
