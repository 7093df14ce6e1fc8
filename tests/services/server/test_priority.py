"""Threads that work stand behind the one that takes requests."""

import os
import sys
import threading

import pytest

from unitscope_services.server.limits.priority import give_way


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no priority for each thread")
def test_a_thread_gives_way_once_and_the_first_one_never() -> None:
    before, found = niceness(), list[int]()

    def work() -> None:
        give_way()
        give_way()
        found.append(niceness())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    give_way()
    assert found == [min(19, before + 10)]
    assert niceness() == before
