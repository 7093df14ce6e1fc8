"""Pictures that were sent last, in memory: what is asked again is no work, whatever else is asked at the time."""

import threading
from collections import OrderedDict


class PictureMemory:
    """Encoded pictures by the ETag of their answer; those asked for last, of so many bytes together."""

    def __init__(self, most_bytes: int = 64_000_000) -> None:
        self._most_bytes = most_bytes
        self._contents: OrderedDict[str, bytes] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()

    def find(self, etag: str) -> bytes | None:
        """Return a picture, None if it is not here."""
        with self._lock:
            if etag in self._contents:
                self._contents.move_to_end(etag)
            return self._contents.get(etag)

    def keep(self, etag: str, content: bytes) -> None:
        """Remember a picture, and forget what was not asked for longest."""
        with self._lock:
            self._size_bytes += len(content) - len(self._contents.pop(etag, b""))
            self._contents[etag] = content
            while self._size_bytes > self._most_bytes:
                self._size_bytes -= len(self._contents.popitem(last=False)[1])
