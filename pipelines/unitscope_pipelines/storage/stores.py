"""Where atlases lie: in a folder, or below an address `s3://bucket/…` of an object store.

One idea serves both. What an atlas consists of is files that are written whole, once, and never changed: a part is
written to temporary storage of the machine by a writer that knows nothing of stores, and takes its place in one step,
a rename in a folder and the put of an object in an object store; a run that is killed leaves no half of a part. The
manifest is put last and names every part with its SHA-256, so a reader that has the manifest may fetch a part once,
keep it for as long as it likes, and open it by a path of this machine, as DuckDB, FAISS and memory maps want it. In a
folder that path is the part's own; of an object store it is in a cache of bounded size. Only the manifest is asked for
again.

A store is opened once, with `store_of`, where an address comes in, and passed on. It may be sent to other processes.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from unitscope_pipelines.storage.cache import Cache, LocalPart
from unitscope_pipelines.storage.filesystem import is_remote
from unitscope_pipelines.storage.stored_file import StoredFile
from unitscope_schemas import layout
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError, BusyError, StorageError

AtlasAddress = str | Path
"""A folder, or the address of an atlas in an object store, which is always text."""


class Store(Protocol):
    """A store holds the files of one atlas by their paths inside it. Object stores raise StoreError where they refuse.

    A process that gets a store from another one opens the same folder or address by itself: it holds no lock, and
    its own environment says where parts are cached.
    """

    @property
    def address(self) -> AtlasAddress:
        """The folder, or the address in an object store."""

    @property
    def name(self) -> str:
        """The last part of the address, which names the atlas."""

    @property
    def stamp_lifetime_s(self) -> float:
        """The seconds that a stamp is believed, by what asking for it costs."""

    @property
    def scratch(self) -> AtlasAddress:
        """The folder that temporary files are written to."""

    @property
    def is_here(self) -> bool:
        """Whether parts lie on this machine, or machines share them as files, so that none is to be fetched."""

    def hold(self, part: Part) -> LocalPart:
        """Return the part as a file of this machine, which an object store checks against its digest on arrival."""

    def open_range(self, part: Part) -> AbstractContextManager[pa.NativeFile]:
        """Open a part of which some bytes are read, and which is not digested: readers check what they read."""

    def read(self, path: str) -> bytes | None:
        """Return a document's bytes, None if there is none."""

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Return the bytes of several documents in their order; those that are gone are left out."""

    def fetch(self, parts: Iterable[Part]) -> None:
        """Bring parts that will be held again and again to this machine, several at a time.

        Raises StorageError if there is no room for all of them together.
        """

    def stamp(self, path: str) -> Hashable | None:
        """Return what tells a document's present state from another, None if there is no document."""

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file as it is stored; raises OSError if it cannot be read."""

    def walk(self, folder: str = "") -> Iterator[StoredFile]:
        """List all files below a folder, in no order."""

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """Give a path of this machine to write a file to; what is there when the block ends is deleted."""

    def put(self, file: Path, part: Part) -> None:
        """Move a written file to its place in the atlas in one step; raises OSError."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files, all of them if not killed; those that are gone already are no error."""

    def locked(self) -> AbstractContextManager[None]:
        """Be the only writer until the block ends; raises BusyError at once if there is one."""

    def remove_unfinished(self) -> int:
        """Delete what killed writers left behind, and count it; only for the one that holds the lock."""


def store_of(address: AtlasAddress | Store, cache: Cache | None = None) -> Store:
    """Open the store of an atlas, whose parts are cached as the environment says unless told otherwise.

    A store is returned as it is. Raises UsageError for an address that cannot be one.
    """
    if isinstance(address, Path):
        return FolderStore(address)
    if not isinstance(address, str):
        return address
    if not is_remote(address):
        return FolderStore(Path(address))
    from unitscope_pipelines.storage.object_stores.object_store import open_object_store

    return open_object_store(address, cache)


class FolderStore:
    """An atlas in a folder of this machine, or of a file system that machines share."""

    stamp_lifetime_s = 0.0
    is_here = True

    def __init__(self, folder: Path) -> None:
        self.address = folder

    def __reduce__(self) -> tuple[Any, ...]:
        """Name the folder from the root, for a process that works elsewhere."""
        return FolderStore, (self.address.absolute(),)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.address.resolve().name

    @property
    def scratch(self) -> AtlasAddress:
        """The folder itself: a rename is atomic only within a file system."""
        return self.address

    def hold(self, part: Part) -> LocalPart:
        """Return the part's own file; raises AtlasError where that is no file of the atlas's folder."""
        return LocalPart(self._own(part.path))

    def open_range(self, part: Part) -> AbstractContextManager[pa.NativeFile]:
        """Open the part's own file; raises OSError where it is missing, AtlasError as `hold`."""
        opened: AbstractContextManager[pa.NativeFile] = pa.OSFile(str(self._own(part.path)))
        return opened

    def read(self, path: str) -> bytes | None:
        """Return a document's bytes, None if there is none; raises AtlasError where a link leads out of the folder."""
        file = self.address / path
        return self._own(path).read_bytes() if file.is_file() else None

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Return the bytes of several documents in their order; those that are gone are left out."""
        return [data for data in map(self.read, paths) if data is not None]

    def fetch(self, parts: Iterable[Part]) -> None:
        """Do nothing: every part is here."""

    def stamp(self, path: str) -> Hashable | None:
        """Return time, inode and size of a document, None if there is none."""
        try:
            state = (self.address / path).stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_ino, state.st_size

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file as it is stored; raises OSError if it cannot be read, AtlasError as `hold`."""
        with self._own(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def walk(self, folder: str = "") -> Iterator[StoredFile]:
        """List all files below a folder, in no order; links are left out."""
        root = self.address / folder
        for path in root.rglob("*") if os.path.isdir(root) else ():  # noqa: PTH112  (a name too long is no folder)
            with suppress(FileNotFoundError):  # a temporary file that was renamed since
                if path.is_file() and not path.is_symlink():
                    state = path.stat()
                    yield StoredFile(path.relative_to(self.address).as_posix(), state.st_size, state.st_mtime_ns)

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """Give the path of a file in a hidden folder beside the target; what is there when the block ends is deleted.

        A folder, for libraries put files beside those that they write, such as a log. Raises AtlasError where a link
        leads out of the atlas.
        """
        target, name = self._own(path), uuid.uuid4().hex
        folder = target.with_name(f".{target.name}.{name}.tmp")
        try:
            folder.mkdir(parents=True)
            yield folder / name  # nobody else's: DuckDB calls a database by its file, and a schema may have that name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, file: Path, part: Part) -> None:
        """Rename a written file to its path once the disk has it; raises OSError."""
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        file.replace(self.address / part.path)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files; those that are gone already are no error."""
        for path in paths:
            (self.address / path).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer until the block ends; the lock goes with the process. Raises BusyError, StorageError."""
        try:
            self.address.mkdir(parents=True, exist_ok=True)
            file = (self.address / layout.LOCK).open("w")
        except OSError as error:
            raise StorageError(f"cannot write into {self.address}: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BusyError(f"another index run is writing {self.address}; wait for it or stop it") from None
            yield

    def _own(self, path: str) -> Path:
        """Return the file at a path inside the folder; raises AtlasError where a link leads out of it, and for what is
        no file, which is not opened: a pipe would wait for ever."""
        own, is_linked = str(self.address), False
        for step in path.split("/"):
            own = f"{own}/{step}"
            is_linked = is_linked or os.path.islink(own)  # noqa: PTH114 - every read comes here, objects take 10 x
        file = Path(own)
        if is_linked and not file.resolve().is_relative_to(self.address.resolve()):
            raise AtlasError(f"{path} of atlas {self.name} is a link that leads out of the atlas: it is not opened")
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(file.stat().st_mode):
                raise AtlasError(f"{path} of atlas {self.name} is a folder, pipe or device: it is not opened")
        return file

    def remove_unfinished(self) -> int:
        """Delete what killed writers have half written, and count it: folders, and files of earlier versions."""
        leftovers = list(self.address.rglob(".*.tmp"))
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        return len(leftovers)


def is_full(error: OSError) -> bool:
    """Tell whether a disk has no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
