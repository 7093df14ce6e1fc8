"""Whether a process of this machine still runs."""

import os
from pathlib import Path


def is_alive(process: int) -> bool:
    """Return whether a process of this machine runs; one that ended stays in the table until its parent has asked.

    In a container the first process may never ask, so that a killed run would seem to go on.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    try:
        said = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:  # no such file on this system
        return False
    return said.rpartition(")")[2].split()[0] in {"Z", "X"}
