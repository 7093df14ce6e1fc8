"""A floor of memory: costly work is refused while the machine, or the container, has less to give."""

import threading
import time
from contextlib import suppress
from pathlib import Path

from unitscope_schemas.errors import BusyError

_LOOK_EVERY_S = 0.25
_RETRY_S = 10
_ROOT = Path("/")


class MemoryFloor:
    """The bytes that have to be available before costly work begins; 0 asks for none.

    `root`: where the files of the kernel are found that tell how much is available.
    """

    def __init__(self, floor_bytes: int, root: Path = _ROOT) -> None:
        self._floor_bytes, self._root = floor_bytes, root
        self._lock = threading.Lock()
        self._looked_s = -_LOOK_EVERY_S
        self._seen_bytes: int | None = None

    def check(self) -> None:
        """Raise BusyError, with a time to wait, where less is available than the floor."""
        if not self._floor_bytes:
            return
        with self._lock:
            if time.monotonic() - self._looked_s >= _LOOK_EVERY_S:
                self._seen_bytes, self._looked_s = available_bytes(self._root), time.monotonic()
            seen_bytes = self._seen_bytes
        if seen_bytes is not None and seen_bytes < self._floor_bytes:
            raise BusyError(
                f"the server has {seen_bytes / 1e6:,.0f} MB of memory left and begins no costly work below "
                f"{self._floor_bytes / 1e6:,.0f} MB; ask again in a while",
                retry_after_s=_RETRY_S,
            )


def available_bytes(root: Path = _ROOT) -> int | None:
    """Return how much memory can still be taken without swapping, None where the system does not say.

    That is the kernel's own figure for the machine, or what the limits of this process's control group and those around
    it leave, if that is less; pages of files count as available.
    """
    known = [_of_machine(root), *map(_of_group, _groups(root))]
    return min((left for left in known if left is not None), default=None)


def _of_machine(root: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _groups(root: Path) -> list[Path]:
    """Return the folders of this process's control groups, inside out; in a container the outermost is its own."""
    mount = root / "sys/fs/cgroup"
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                top = mount / controllers
                inner = top / path.strip("/")
                return [inner, *(folder for folder in inner.parents if folder == top or top in folder.parents)]
    return []


def _of_group(folder: Path) -> int | None:
    """Return what the limit of a control group leaves, of version 2 or 1; None without a limit."""
    for limit, used, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):  # `max` is no number: there is no limit
            most_bytes = int((folder / limit).read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return most_bytes - int((folder / used).read_text()) + int(statistics.get(files, 0))
    return None
