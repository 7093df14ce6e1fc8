"""Who asks: a key by its name and scopes, or nobody in particular, and whose jobs and uploads that reader sees."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from unitscope_schemas.errors import AccessError, ScopeError, listing

Scope = Literal["read", "compute", "annotate", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Scopes in ascending order: each allows what those before it allow."""


class Credentials(NamedTuple):
    """What a request brings to say who asks: its header `Authorization`, and the key in the cookie of a browser."""

    authorization: str | None = None
    cookie: str | None = None


@dataclass(frozen=True)
class Key:
    """A key by its name, its scopes and the hash of its token."""

    name: str
    scopes: frozenset[str]
    sha256: str

    def allows(self, scope: Scope) -> bool:
        """Return whether the key allows a scope, itself or by a stronger one."""
        return not self.scopes.isdisjoint(SCOPES[SCOPES.index(scope) :])


@dataclass(frozen=True)
class Reader:
    """Who asks.

    `key` is None for a request without one; `anyone` is what needs none at this server.
    """

    key: Key | None
    anyone: frozenset[Scope]

    @property
    def name(self) -> str | None:
        """The key's name; None for a reader without one."""
        return self.key.name if self.key else None

    @property
    def owner(self) -> str:
        """What marks this reader's jobs and uploads: the hash of the token, for a name may be given again."""
        return self.key.sha256 if self.key else ""

    @property
    def sees(self) -> str | None:
        """The owner whose jobs and uploads this reader sees: None for all, which the scope admin does."""
        return None if self.may("admin") else self.owner

    def may(self, scope: Scope) -> bool:
        """Return whether this reader may do what a scope allows."""
        return scope in self.anyone or (self.key is not None and self.key.allows(scope))

    def demand(self, scope: Scope) -> None:
        """Raise AccessError for a reader without a key where a scope needs one, ScopeError for a key too weak."""
        if self.may(scope):
            return
        if self.key is None:
            raise AccessError(f"this needs a key with the scope {scope}: send Authorization: Bearer KEY")
        raise ScopeError(f"this needs the scope {scope}; the key {self.name!r} has {listing(sorted(self.key.scopes))}")


def is_seen(owner: str, sees: str | None) -> bool:
    """Return whether what one reader owns is there for a reader who sees `sees`."""
    return sees is None or sees == owner
