"""Who may ask what: keys with scopes, of which only hashes are stored."""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from unitscope_schemas.errors import AccessError, ScopeError, UsageError, listing

Scope = Literal["read", "compute", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Scopes in ascending order: each allows what those before it allow."""


@dataclass(frozen=True)
class Key:
    """A key by its name, its scopes and the hash of its token."""

    name: str
    scopes: frozenset[str]
    sha256: str


@dataclass(frozen=True)
class Keys:
    """The known keys (None: the server is open) and whether reading needs one."""

    known: tuple[Key, ...] | None
    anonymous_read: bool

    def allows_anyone(self, scope: Scope) -> bool:
        """Return whether a request without a key may do this, so that shared caches may keep the answer."""
        if self.anonymous_read:
            return scope == "read"
        return self.known is None

    def check(self, authorization: str | None, scope: Scope) -> None:
        """Raise AccessError without a known key where one is needed, ScopeError for one that is too weak."""
        if self.allows_anyone(scope) and (authorization is None or self.known is None):
            return
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise AccessError(f"this needs a key with the scope {scope}: send Authorization: Bearer KEY")
        key = self._find(token.strip())
        if key is None:
            raise AccessError("the key is not known to this server")
        if not key.scopes & set(SCOPES[SCOPES.index(scope) :]):
            raise ScopeError(f"this needs the scope {scope}; the key {key.name!r} has {listing(sorted(key.scopes))}")

    def name_of(self, authorization: str | None) -> str | None:
        """Return the name of the known key that a request carries, None without one."""
        kind, _, token = (authorization or "").partition(" ")
        key = self._find(token.strip()) if kind.lower() == "bearer" else None
        return None if key is None else key.name

    def _find(self, token: str) -> Key | None:
        """Compare with every key in constant time, so that timing tells nothing about them."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        matched = None
        for key in self.known or ():
            if hmac.compare_digest(key.sha256, digest):
                matched = key
        return matched


def read_keys(path: Path | None, anonymous_read: bool) -> Keys:
    """Read a key file; raises UsageError that names the line at fault."""
    if path is None:
        return Keys(None, anonymous_read)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"key file {path} cannot be read: {error}") from None
    keys = [
        _key(f"line {number} of key file {path}", line.split())
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not keys:
        raise UsageError(f"key file {path} holds no key; its lines are: name scope[,scope] sha256hex")
    return Keys(tuple(keys), anonymous_read)


def _key(where: str, parts: list[str]) -> Key:
    if len(parts) != 3:
        raise UsageError(f"{where} is not: name scope[,scope] sha256hex")
    name, scopes, digest = parts
    if unknown := set(scopes.split(",")) - set(SCOPES):
        raise UsageError(f"{where}: no scope {listing(sorted(unknown))}; there are {listing(SCOPES)}")
    if len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
        raise UsageError(f"{where}: the third word is no SHA-256 of a key (64 hexadecimal digits)")
    return Key(name, frozenset(scopes.split(",")), digest.lower())
