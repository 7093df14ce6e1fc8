"""A wish to stop that is not lost: what a signal raises within a destructor or a callback is dropped there."""

import signal
from typing import NoReturn

_wished = list[int]()


def listen() -> None:
    """From now on raise KeyboardInterrupt on SIGINT, unless it is ignored here, and SystemExit on SIGTERM."""
    _wished.clear()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _hear)
    signal.signal(signal.SIGTERM, _hear)


def stop_if_wished() -> None:
    """Raise again what a signal has raised, if somebody dropped it."""
    if _wished:
        _stop(_wished[-1])


def _hear(number: int, _frame: object) -> None:
    _wished.append(number)
    _stop(number)


def _stop(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
