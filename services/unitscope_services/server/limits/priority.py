"""Threads that work for readers give way to the one that takes their requests."""

import os
import sys
import threading
from contextlib import suppress

_BEHIND = 10
"""How far behind they stand, in the system's levels of niceness."""
_known = threading.local()


def give_way() -> None:
    """Lower the priority of this thread, once, where the system has one for each thread; never that of the first one.

    What answers in microseconds then need not wait for a core until what computes has used up its slice of time.
    """
    if sys.platform != "linux" or hasattr(_known, "niceness") or threading.current_thread() is threading.main_thread():
        return
    thread = threading.get_native_id()
    _known.niceness = min(19, os.getpriority(os.PRIO_PROCESS, thread) + _BEHIND)
    with suppress(OSError):  # a container may forbid it
        os.setpriority(os.PRIO_PROCESS, thread, _known.niceness)
