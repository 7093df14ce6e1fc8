"""A process that has ended holds nothing, whether or not its parent has asked how it ended."""

import os
import subprocess
import sys

import psutil

from tests.processes import still_running
from unitscope_pipelines.storage.processes import is_alive


def ended_but_not_reaped() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", "pass"], text=True)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


def test_a_process_that_runs_is_alive() -> None:
    assert is_alive(os.getpid())


def test_a_process_of_somebody_else_is_alive() -> None:
    assert is_alive(1)


def test_a_process_that_ended_is_not_alive_before_its_parent_has_asked() -> None:
    process = ended_but_not_reaped()
    assert psutil.pid_exists(process.pid)
    assert not is_alive(process.pid)
    assert still_running([psutil.Process(process.pid)], 0) == []
    process.wait()
    assert not is_alive(process.pid)
