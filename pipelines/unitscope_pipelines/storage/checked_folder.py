"""A folder whose parts readers can trust: each is what was sealed, or an error that names it."""

import hashlib
import threading
from pathlib import Path

from unitscope_pipelines.storage.cache import LocalPart
from unitscope_pipelines.storage.stores import FolderStore, Store
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError

_FileState = tuple[int, ...]


class _KnownDigests:
    """The digests of files that this process has read whole, by what tells a file in its present state from another.

    The time of the last change of the file's entry is part of that: a program may set the time of its bytes, not this.
    """

    def __init__(self) -> None:
        self._digests: dict[_FileState, str] = {}
        self._reading: dict[_FileState, threading.Lock] = {}
        self._lock = threading.Lock()

    def of(self, file: Path) -> str:
        """Return the SHA-256 of a file; threads that ask for one at the same time read it once."""
        stat = file.stat()
        state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if (known := self._digests.get(state)) is not None:
            return known
        with self._lock:
            reading = self._reading.setdefault(state, threading.Lock())
        with reading:
            if state not in self._digests:
                with file.open("rb") as opened:
                    self._digests[state] = hashlib.file_digest(opened, "sha256").hexdigest()
            self._reading.pop(state, None)
            return self._digests[state]


_KNOWN = _KnownDigests()


class CheckedFolder(FolderStore):
    """An atlas in a folder, each of whose parts is digested when it is first held, and again once it has changed.

    Costs one reading of each part that is asked for, in each process.
    """

    def hold(self, part: Part) -> LocalPart:
        """Return the part's own file; raises AtlasError unless its bytes are those that were sealed."""
        file = self._own(part.path)
        try:
            digest = _KNOWN.of(file)
        except OSError as error:
            reason = error.strerror or error
            raise AtlasError(f"part {part.path} of atlas {self.name} is missing or damaged: {reason}") from None
        if digest != part.sha256:
            raise AtlasError(
                f"part {part.path} of atlas {self.name} is damaged: its bytes are not those that were sealed; "
                "unitscope verify lists all that are, and a copy of the file or unitscope index mends it"
            )
        return LocalPart(file)


def checked(store: Store) -> Store:
    """Return the store with its parts checked when they are held; object stores check what arrives already."""
    return CheckedFolder(store.address) if type(store) is FolderStore else store
