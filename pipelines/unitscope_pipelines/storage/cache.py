"""Parts of atlases in object stores, kept on this machine: a folder of bounded size that processes share."""

import fcntl
import hashlib
import os
import re
import shutil
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from platformdirs import user_cache_path

from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError, StorageError, UsageError

DEFAULT_GB = 10.0
_GB = 1_000_000_000
_LEFT_SHARE = 0.9
"""Share of the bound to which files are deleted, so that the folder is not listed anew for every file that comes."""
_CACHED_NAME = re.compile("[0-9a-f]{64}([.]arriving)?|[0-9a-f]{32}[.]writing")
_ACCOUNT = "bytes"


class LocalPart:
    """A part as a file of this machine, which stays there until the block or this object ends."""

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        self._let_go = None if descriptor is None else weakref.finalize(self, os.close, descriptor)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        if self._let_go is not None:
            self._let_go()


class _CachedFile(NamedTuple):
    """A file of the cache, or a folder in which one is written."""

    used_ns: int
    size_bytes: int
    path: Path


@dataclass(frozen=True)
class Cache:
    """A folder of files named by the SHA-256 of their bytes: they never change, and atlases share equal parts.

    Who reads a file holds a shared `flock` on it; only files that nobody holds are deleted, the one used longest ago
    first. Locks end with their process, so a killed one leaves nothing in use; what it was fetching or writing is
    deleted when room is needed. The folder must lie on a disk of this machine. It never holds more than `limit_bytes`
    but for parts that are being written; raises StorageError where what is in use leaves no room for one more.
    """

    folder: Path
    limit_bytes: int

    @classmethod
    def from_environment(cls, folder: Path | None = None, gigabytes: float | None = None) -> "Cache":
        """Return the cache that is asked for, else that of UNITSCOPE_CACHE and UNITSCOPE_CACHE_GB, else the user's own.

        Raises UsageError for a size that is none.
        """
        given = os.environ.get("UNITSCOPE_CACHE")
        folder = folder or (Path(given) if given else user_cache_path("unitscope"))
        try:
            size = float(os.environ.get("UNITSCOPE_CACHE_GB", DEFAULT_GB)) if gigabytes is None else gigabytes
        except ValueError:
            raise UsageError(f"UNITSCOPE_CACHE_GB={os.environ['UNITSCOPE_CACHE_GB']!r} is no number") from None
        if not 0 < size < float("inf"):
            raise UsageError(f"a cache of {size:g} GB cannot hold anything; the default is {DEFAULT_GB:g}")
        return cls(folder.absolute(), int(size * _GB))

    def hold(self, part: Part, fetch: Callable[[IO[bytes]], None]) -> LocalPart:
        """Return the part's file, which `fetch` fills unless it is here; other processes that want it too wait for it.

        Raises AtlasError if what was fetched is not what was sealed.
        """
        with self._in_words():
            while (file := self._locked_file(part.sha256)) is None:
                self._take_in(part, fetch)
            return file

    def find(self, part: Part) -> LocalPart | None:
        """Return the part's file if it is here."""
        with self._in_words():
            return self._locked_file(part.sha256)

    def check_room(self, parts: Iterable[Part]) -> None:
        """Raise StorageError if some parts do not fit together: each would push others out before they are read."""
        wanted_bytes = sum(part.size_bytes for part in parts)
        if wanted_bytes > self.limit_bytes:
            raise StorageError(
                f"{wanted_bytes / _GB:.3g} GB are read again and again, more than the cache {self.folder} may hold; "
                f"set UNITSCOPE_CACHE_GB to {wanted_bytes / _GB + 1:.0f} or more everywhere, and run again to resume"
            )

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Give a path that nothing is at, to write a part to; what is there when the block ends is deleted."""
        folder = self.folder / f"{uuid.uuid4().hex}.writing"
        with self._in_words():
            folder.mkdir(parents=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield folder / "part"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)

    def adopt(self, file: Path, part: Part) -> None:
        """Take in a file that was written here as the part it became, so that it need not be fetched, if it fits."""
        with self._in_words(), self._account() as account:
            if self._has_room(account, part.size_bytes):
                file.replace(self.folder / part.sha256)

    def _locked_file(self, digest: str) -> LocalPart | None:
        """Return the file of this digest, which nobody deletes as long as it is in use; None if there is none."""
        try:
            descriptor = os.open(self.folder / digest, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink == 0:  # deleted between the two lines above
            os.close(descriptor)
            return None
        os.utime(descriptor)
        return LocalPart(self.folder / digest, descriptor)

    def _take_in(self, part: Part, fetch: Callable[[IO[bytes]], None]) -> None:
        """Fetch a part, unless another process that was fetching it has done so by the time it lets go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arriving = self.folder / f"{part.sha256}.arriving"
        with os.fdopen(os.open(arriving, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if os.fstat(file.fileno()).st_nlink == 0 or (self.folder / part.sha256).exists():
                    return
                self._make_room(part, file)
                fetch(file)
                file.flush()
                file.seek(0)
                if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                    raise AtlasError(f"part {part.path} is damaged: its bytes are not those that were sealed")
                os.fsync(file.fileno())
                with self._account():  # who counts would else find it under neither name
                    arriving.replace(self.folder / part.sha256)
            finally:
                with suppress(FileNotFoundError):
                    if arriving.stat().st_ino == os.fstat(file.fileno()).st_ino:
                        arriving.unlink()

    def _make_room(self, part: Part, file: IO[bytes]) -> None:
        """Give a file that is to be fetched its size; raises StorageError where there is no room for it."""
        with self._account() as account:
            if not self._has_room(account, part.size_bytes):
                raise StorageError(
                    f"the cache {self.folder} of {self.limit_bytes / _GB:g} GB has no room for {part.path} "
                    f"({part.size_bytes / _GB:.3g} GB) beside what is in use; give it more: --cache-gb of serve, "
                    "or UNITSCOPE_CACHE_GB"
                )
            os.truncate(file.fileno(), part.size_bytes)  # seen by others who count

    def _has_room(self, account: IO[str], size_bytes: int) -> bool:
        """Note that so many bytes come, and tell whether they fit; deletes what was used longest ago to make room."""
        text = account.read()
        total = int(text) if text.isdigit() else self.limit_bytes  # unknown: counted below
        if total + size_bytes > self.limit_bytes:
            total = self._shrink_to(int(_LEFT_SHARE * self.limit_bytes) - size_bytes)
        fits = total + size_bytes <= self.limit_bytes
        account.seek(0)
        account.truncate()
        account.write(str(total + size_bytes * fits))
        return fits

    def _shrink_to(self, wanted_bytes: int) -> int:
        """Delete files that nobody holds until no more than this is left; return how many bytes are left in truth."""
        files = sorted(self._files())
        total = sum(file.size_bytes for file in files if file.path.suffix != ".writing")
        for file in files:
            if total > wanted_bytes and _deleted(file.path) and file.path.suffix != ".writing":
                total -= file.size_bytes
        return total

    def _files(self) -> Iterator[_CachedFile]:
        """List the files and folders that a cache has made; anything else in the folder is left alone."""
        for entry in os.scandir(self.folder):
            if _CACHED_NAME.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    stat = entry.stat()
                    yield _CachedFile(stat.st_mtime_ns, stat.st_size, Path(entry.path))

    @contextmanager
    def _account(self) -> Iterator[IO[str]]:
        """Open the count of the bytes that the files have together, for one process at a time."""
        descriptor = os.open(self.folder / _ACCOUNT, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(descriptor, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn an OSError into a StorageError that names the folder and what would do."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"the cache {self.folder} cannot be used: {error.strerror or error}; free space, or name another "
                "folder: --cache of serve, or UNITSCOPE_CACHE"
            ) from error


def _deleted(path: Path) -> bool:
    """Delete a file or folder unless somebody holds it, and tell whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
