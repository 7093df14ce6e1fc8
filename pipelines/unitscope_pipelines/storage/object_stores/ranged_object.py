"""An object of which some bytes are read, each run of them by one request."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

ReadRange = Callable[[int, int], bytes]
"""Return the bytes of an object from the first to before the second place."""


class HeldRanges:
    """The ranges of objects that were read last, up to so many bytes; parts never change. Safe from many threads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._bytes, self._lock = limit_bytes, 0, threading.Lock()
        self._held: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()

    def find(self, key: str, start: int, end: int) -> bytes | None:
        """Return bytes of an object that lie in one range which is held, None if none has all of them."""
        with self._lock:
            for name, first, last in reversed(self._held):
                if name == key and first <= start and end <= last:
                    self._held.move_to_end((name, first, last))
                    return self._held[name, first, last][start - first : end - first]
        return None

    def take(self, key: str, start: int, data: bytes) -> None:
        """Hold a range, and let go of those that were read longest ago."""
        with self._lock:
            own = key, start, start + len(data)
            if own in self._held or len(data) > self._limit:
                return
            self._held[own] = data
            self._bytes += len(data)
            while self._bytes > self._limit:
                self._bytes -= len(self._held.popitem(last=False)[1])


class RangedObject(io.RawIOBase):
    """A file that is an object of a store: what is read of it at a time is one request, unless it is held already."""

    def __init__(self, key: str, size_bytes: int, read: ReadRange, held: HeldRanges) -> None:
        super().__init__()
        self._key, self._size, self._read, self._held = key, size_bytes, read, held
        self._place = 0

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Let the next read begin elsewhere; nothing is asked of the store."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size`."""
        start = self._place
        end = self._size if size < 0 else min(self._size, start + size)
        if not 0 <= start < end:
            return b""
        data = self._held.find(self._key, start, end)
        if data is None:
            data = self._read(start, end)
            self._held.take(self._key, start, data)
        self._place = start + len(data)
        return data
