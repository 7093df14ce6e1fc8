"""Temporary folders of this process, below the one that the environment's TMPDIR names.

A process that is killed leaves its folder behind: the next one that needs any deletes it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import duckdb

from unitscope_pipelines.storage.stores import is_full
from unitscope_schemas.errors import StorageError

_PREFIX, _LOCK = "unitscope-scratch-", "lock"
Scratch = tempfile.TemporaryDirectory[str]


def scratch_folder() -> Scratch:
    """Return a new temporary folder, which goes when nothing holds it any more."""
    return tempfile.TemporaryDirectory(dir=_own(os.getpid(), os.geteuid()).folder.name)


@contextmanager
def writing_scratch() -> Iterator[None]:
    """Raise StorageError, which says what would do, where temporary files do not fit."""
    try:
        yield
    except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        if isinstance(error, OSError) and not is_full(error):
            raise
        where = f"temporary files in {tempfile.gettempdir()}: set TMPDIR to a folder of a larger disk"
        raise StorageError(f"no room for {where} ({error})") from error


@dataclass(frozen=True)
class _Own:
    """The folder of this process, and the lock that says that the process lives."""

    folder: Scratch
    lock: IO[bytes]


@cache
def _own(_process: int, user: int) -> _Own:
    """Make the folder of this process, which may be a fork of one that has its own, after those of killed ones are
    gone."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # of another person, or gone in this moment
            _remove_if_left(left, user)
    folder = tempfile.TemporaryDirectory(prefix=_PREFIX)
    unnamed = Path(folder.name) / "new"
    lock = unnamed.open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(unnamed.with_name(_LOCK))  # whoever finds it by its name finds it locked
    return _Own(folder, lock)


def _remove_if_left(folder: Path, user: int) -> None:
    """Delete a user's folder whose process is gone; raises OSError if it lives."""
    if folder.is_symlink() or folder.stat().st_uid != user:
        return
    with (folder / _LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
