"""The file of keys: lines `name scope[,scope] sha256hex`, readable by nobody else, changed by commands under a lock."""

import fcntl
import hashlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from unitscope_schemas.errors import NotFoundError, UsageError, listing
from unitscope_services.server.access.readers import SCOPES, Key, Scope

TOKEN_PREFIX = "unitscope_"
_TOKEN_BYTES = 32
_NAME = re.compile(r"[\w.@+-]{1,64}")
_LINE = "name scope[,scope] sha256hex"

_log = logging.getLogger("unitscope")


def read_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file; raises UsageError that names the line at fault, or who else may read the file."""
    keys = tuple(_keys_in(path, _content(path), _refuse))
    if not keys:
        raise UsageError(f"key file {path} holds no key: its lines are {_LINE}; unitscope key new NAME writes one")
    return keys


def read_valid_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys whose lines can be read now: none where the file itself cannot be. Faults are logged."""
    try:
        return tuple(_keys_in(path, _content(path), lambda fault: _log.error("%s; no key is read from it", fault)))
    except UsageError as error:
        _log.error("%s; until then no key is known", error)
        return ()


def make_key(path: Path, name: str, scope: Scope) -> str:
    """Add a key to a file, which is made if it is not there, and return its token, which is stored nowhere.

    Raises UsageError for a name that is none, or that a key has already.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"name {name!r} is not 1 to 64 letters, digits, or . _ @ + -")
    token = TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    with _locked(path, os.O_RDWR | os.O_CREAT) as file:
        text = _text(path, file)
        if name in {key.name for key in _keys_in(path, text, _refuse)}:
            raise UsageError(f"key file {path} has a key {name!r} already; unitscope key remove {name} takes it away")
        before = "" if text.endswith("\n") or not text else "\n"
        digest = hashlib.sha256(token.encode()).hexdigest()
        os.pwrite(file, f"{before}{name} {scope} {digest}\n".encode(), len(text.encode()))
        os.fsync(file)
    return token


def remove_key(path: Path, name: str) -> None:
    """Take a key out of a file; servers that read it refuse the key from then on. Raises NotFoundError.

    The file itself is written to, not another put in its place: a container sees the file that was mounted.
    """
    with _locked(path, os.O_RDWR) as file:
        text = _text(path, file)
        keys = list(_keys_in(path, text, lambda _: None))
        if name not in {key.name for key in keys}:
            known = listing(key.name for key in keys) or "none"
            raise NotFoundError(f"key file {path} has no key {name!r}; there are {known}")
        kept = "".join(line for line in text.splitlines(keepends=True) if line.split()[:1] != [name]).encode()
        os.pwrite(file, kept, 0)
        os.ftruncate(file, len(kept))
        os.fsync(file)


def _content(path: Path) -> str:
    with _opened(path, os.O_RDONLY) as file:
        return _text(path, file)


def _text(path: Path, file: int) -> str:
    """Return the text of an open file, from its beginning; raises UsageError."""
    try:
        return os.pread(file, os.fstat(file).st_size, 0).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"key file {path} cannot be read: {error}") from None


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    with _opened(path, flags) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Give an open file that nobody else may read or write; one that is made is the owner's alone."""
    try:
        file = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise UsageError(f"key file {path} cannot be read: {error.strerror}") from None
    try:
        _check_private(path, os.fstat(file))
        yield file
    finally:
        os.close(file)


def _check_private(path: Path, state: os.stat_result) -> None:
    """Raise UsageError where others may read or write a file.

    Its group may read what belongs to another user: so a secret that is mounted reaches a process that is not root.
    """
    if not stat.S_ISREG(state.st_mode):
        raise UsageError(f"key file {path} is no file")
    group_may = 0 if state.st_uid == os.geteuid() else stat.S_IRGRP
    if state.st_mode & 0o077 & ~group_may:
        raise UsageError(
            f"key file {path} may be read or written by others (mode {stat.S_IMODE(state.st_mode):04o}): "
            f"chmod 600 {path}; for a mounted secret set its mode to 0400 and its owner to user {os.geteuid()}, "
            "or 0440 and its group to one of that user's"
        )


def _keys_in(path: Path, text: str, tell: Callable[[str], object]) -> Iterator[Key]:
    """Yield the keys of the lines that can be read; `tell` hears of every other."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                yield _key(f"line {number} of key file {path}", line.split())
            except UsageError as error:
                tell(str(error))


def _refuse(fault: str) -> NoReturn:
    raise UsageError(fault)


def _key(where: str, parts: list[str]) -> Key:
    if len(parts) != 3:
        raise UsageError(f"{where} is not: {_LINE}")
    name, scopes, digest = parts
    if unknown := set(scopes.split(",")) - set(SCOPES):
        raise UsageError(f"{where}: no scope {listing(sorted(unknown))}; there are {listing(SCOPES)}")
    if len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
        raise UsageError(f"{where}: the third word is no SHA-256 of a key (64 hexadecimal digits)")
    return Key(name, frozenset(scopes.split(",")), digest.lower())
