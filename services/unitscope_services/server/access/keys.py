"""The keys that a server knows, as their file says now."""

import hashlib
import hmac
from pathlib import Path

from unitscope_schemas.errors import AccessError
from unitscope_services.server.access.key_file import read_keys, read_valid_keys
from unitscope_services.server.access.readers import SCOPES, Credentials, Key, Reader, Scope


class Keys:
    """The known keys, and what a request without one may do.

    The file is looked at with every request and read again when it has changed, so that a key that was removed is
    refused at once, by every process. While the server runs only lines that can be read count, and none where the file
    is gone or others may read it: to go on with the keys from before would let in those that were removed, and to
    refuse all for one line that is wrong would lock everybody out for a slip.
    """

    def __init__(self, path: Path | None, anonymous_read: bool) -> None:
        """Read the key file, if there is one; raises UsageError for a file that is not as it must be."""
        self._path = path
        self._anyone: frozenset[Scope] = frozenset(SCOPES if path is None and not anonymous_read else ())
        if anonymous_read:
            self._anyone = frozenset(("read",))
        self._seal = _seal(path)
        self._known = () if path is None else read_keys(path)

    @property
    def are_used(self) -> bool:
        """Whether there is a key file at all."""
        return self._path is not None

    def allows_anyone(self, scope: Scope) -> bool:
        """Return whether a request without a key may do this, so that shared caches may keep the answer."""
        return scope in self._anyone

    def reader(self, credentials: Credentials) -> Reader:
        """Return who asks; raises AccessError for a header with a key that is not known.

        A cookie with such a key counts as none: whoever was signed in with it may still do what anyone may.
        """
        authorization, cookie = credentials
        if not self.are_used:
            return Reader(None, self._anyone)
        if authorization is None:
            return Reader(None if cookie is None else self.find(cookie), self._anyone)
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise AccessError("this header holds no key: send Authorization: Bearer KEY")
        key = self.find(token.strip())
        if key is None:
            raise AccessError("the key is not known to this server")
        return Reader(key, self._anyone)

    def find(self, token: str) -> Key | None:
        """Return the key of a token; all are compared in constant time, so that timing tells nothing about them."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
        matched = None
        for key in self._present():
            if hmac.compare_digest(key.sha256, digest):
                matched = key
        return matched

    def _present(self) -> tuple[Key, ...]:
        if self._path is not None and (seal := _seal(self._path)) != self._seal:
            self._known = read_valid_keys(self._path)
            self._seal = seal  # of before it was read: what changes meanwhile is read again
        return self._known


def _seal(path: Path | None) -> tuple[int, ...] | None:
    """Return what changes with a file's content, owner or mode; None where there is none."""
    if path is None:
        return None
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
