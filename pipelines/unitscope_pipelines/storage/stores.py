"""Where atlases lie: in a folder, or below an address `s3://bucket/…` of an object store.

One idea serves both. What an atlas consists of is files that are written whole, once, and never changed: a part is
written to temporary storage of the machine by a writer that knows nothing of stores, and takes its place in one step,
a rename here and the put of an object there; a run that is killed leaves no half of a part. The manifest is put last
and names every part with its SHA-256, so a reader that has the manifest may fetch a part once, keep it for as long as
it likes, and open it by a path of this machine, as DuckDB, FAISS and memory maps want it. In a folder that path is the
part's own; of an object store it is in a cache of bounded size. Only the manifest is asked for again.
"""

import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from unitscope_pipelines.storage.cache import Cache, Held
from unitscope_pipelines.storage.filesystem import File, is_remote
from unitscope_schemas import layout
from unitscope_schemas.errors import BusyError, StorageError
from unitscope_schemas.manifest import Part

Root = str | Path
"""A folder, or the address of an atlas in an object store, which is always text."""


class Store(Protocol):
    """The files of one atlas by their paths inside it. Object stores raise StoreError where they refuse."""

    @property
    def root(self) -> Root:
        """The folder, or the address."""

    @property
    def name(self) -> str:
        """What the atlas is called: the last part of its address."""

    @property
    def look_every_s(self) -> float:
        """How long a stamp is believed: what asking for it costs."""

    @property
    def scratch(self) -> Root:
        """Where temporary files are."""

    def hold(self, part: Part) -> Held:
        """The part as a file of this machine, which an object store checks against its digest when it arrives."""

    def read(self, path: str) -> bytes | None:
        """A document's bytes, None if there is none."""

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """The bytes of several documents in their order; those that are gone are left out."""

    def fetch(self, parts: Iterable[Part]) -> None:
        """Bring parts that will be held again and again to this machine, several at a time.

        Raises StorageError if there is no room for all of them together.
        """

    def stamp(self, path: str) -> Hashable | None:
        """What tells a document's present state from another, None if there is none."""

    def digest(self, path: str) -> str:
        """The SHA-256 of a file as it lies there; raises OSError if it cannot be read."""

    def walk(self, folder: str = "") -> Iterator[File]:
        """All files below, in no order."""

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """A path of this machine to write a file to; what is there when the block ends is gone."""

    def put(self, file: Path, part: Part) -> None:
        """Give a written file its place in one step; raises OSError."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files, all of them if not killed; those that are gone already are no error."""

    def locked(self) -> AbstractContextManager[None]:
        """Be the only writer until the block ends; raises BusyError at once if there is one."""

    def remove_unfinished(self) -> int:
        """Delete what killed writers left behind; only for the one that holds the lock."""


def store_of(root: "Root | Store", cache: Cache | None = None) -> Store:
    """The store of an atlas, whose parts are cached as the environment says unless told otherwise.

    Raises UsageError for an address that cannot be one.
    """
    if isinstance(root, Path):
        return FolderStore(root)
    if not isinstance(root, str):
        return root
    return _object_store(root, cache or Cache.chosen()) if is_remote(root) else FolderStore(Path(root))


@lru_cache(64)
def _object_store(address: str, cache: Cache) -> Store:
    from unitscope_pipelines.storage.object_store import ObjectStore

    return ObjectStore(address, cache)


def absolute(root: Root) -> Root:
    """The same place for every process."""
    return root if isinstance(root, str) and is_remote(root) else Path(root).absolute()


class FolderStore:
    """An atlas in a folder of this machine, or of a file system that machines share."""

    look_every_s = 0.0

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def name(self) -> str:
        return self.root.resolve().name

    @property
    def scratch(self) -> Root:
        return self.root

    def hold(self, part: Part) -> Held:
        return Held(self.root / part.path)

    def read(self, path: str) -> bytes | None:
        file = self.root / path
        return file.read_bytes() if file.is_file() else None

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        return [data for data in map(self.read, paths) if data is not None]

    def fetch(self, parts: Iterable[Part]) -> None:
        """Nothing to do."""

    def stamp(self, path: str) -> Hashable | None:
        try:
            stat = (self.root / path).stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def digest(self, path: str) -> str:
        with (self.root / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def walk(self, folder: str = "") -> Iterator[File]:
        for path in (self.root / folder).rglob("*"):
            with suppress(FileNotFoundError):  # a temporary file that was renamed since
                if path.is_file() and not path.is_symlink():
                    stat = path.stat()
                    yield File(path.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime_ns)

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        target = self.root / path
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def put(self, file: Path, part: Part) -> None:
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        file.replace(self.root / part.path)

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            (self.root / path).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The lock goes with the process."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / layout.LOCK).open("w")
        except OSError as error:
            raise StorageError(f"cannot write into {self.root}: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BusyError(f"another index run is writing {self.root}; wait for it or stop it") from None
            yield

    def remove_unfinished(self) -> int:
        leftovers = list(self.root.rglob(".*.tmp"))
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)


def is_full(error: OSError) -> bool:
    """Whether a disk has no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
