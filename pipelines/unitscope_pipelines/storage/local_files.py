"""Files of this machine: a folder is walked, and what can be read is told from what is none."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from unitscope_pipelines.storage.stored_file import StoredFile
from unitscope_schemas.errors import CorpusError
from unitscope_schemas.tables import UNREADABLE


class NoFile(NamedTuple):
    """An entry of a folder that holds no bytes to read, and why: it is never opened."""

    path: str
    what: str


HIDDEN_FOLDER, LISTED_FOLDER = "hidden folder", "link to a folder that is listed already"
"""What two kinds of entries are that are left out on purpose; all others are faults."""
_KINDS = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFDIR: "folder",
}


def walk_folder(root: str) -> Iterator[StoredFile | NoFile]:
    """List a folder of this machine; links to folders wait until all folders have been listed by their own paths."""
    listed = {_identity(parent) for parent in Path(root).resolve().parents}
    own, links = [""], list[str]()
    linked = False
    while own or links:
        linked = linked or not own
        folder = own.pop() if own else links.pop(0)
        whole = os.path.join(root, folder)  # noqa: PTH118
        try:
            identity, entries = _identity(whole), sorted(os.scandir(whole), key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise CorpusError(f"folder {root!r} cannot be listed: {error.strerror}") from None
            yield NoFile(folder, f"folder that {UNREADABLE}: {error.strerror}")
            continue
        if linked and identity in listed:
            yield NoFile(folder, LISTED_FOLDER)
            continue
        listed.add(identity)
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            found = _entry(path, entry)
            if isinstance(found, StoredFile | NoFile):
                yield found
            elif entry.is_symlink():
                links.append(path)
            else:
                own.append(path)


def _entry(path: str, entry: "os.DirEntry[str]") -> StoredFile | NoFile | None:
    """Return what an entry of a folder is, None for a folder that is to be listed itself."""
    try:
        state = entry.stat()
    except OSError as error:
        broken = "broken link" if entry.is_symlink() else f"entry that {UNREADABLE}"
        return NoFile(path, f"{broken}: {error.strerror}")
    kind = stat.S_IFMT(state.st_mode)
    if kind == stat.S_IFREG:
        return StoredFile(path, state.st_size, state.st_mtime_ns)
    if kind == stat.S_IFDIR:
        return NoFile(path, HIDDEN_FOLDER) if entry.name.startswith(".") else None
    return NoFile(path, _KINDS.get(kind, "special file"))


def _identity(path: str | Path) -> tuple[int, int]:
    """Return what tells a folder from all others, by whatever path it was reached; raises OSError."""
    state = os.stat(path)  # noqa: PTH116
    return state.st_dev, state.st_ino


def opened(path: str) -> IO[bytes]:
    """Open a file of this machine; raises OSError for what is none, without opening it: a pipe would wait for ever.

    What became a pipe since it was looked at is opened without waiting, and let go.
    """
    try:
        _check_kind(os.stat(path).st_mode)  # noqa: PTH116
    except ValueError:  # a zero byte in it
        raise FileNotFoundError(0, "no file can have this name") from None
    source = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _check_kind(os.fstat(source.fileno()).st_mode)
    except OSError:
        source.close()
        raise
    return source


def _check_kind(mode: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind != stat.S_IFREG:
        raise OSError(0, f"it is a {_KINDS.get(kind, 'special file')}")


def local_state(file: str, path: str) -> StoredFile | None:
    """Return the state of a file of this machine, None where there is none, or it is none."""
    try:
        state = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return StoredFile(file, state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None
