"""Processes that tests look at: what is left of them once they should have ended."""

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil


def still_running(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """The processes that have not ended after some seconds; one whose parent never asks how it ended has ended too."""
    until = time.monotonic() + seconds
    running = list(processes)
    while (running := [process for process in running if _runs(process)]) and time.monotonic() < until:
        time.sleep(0.05)
    return running


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    return False
