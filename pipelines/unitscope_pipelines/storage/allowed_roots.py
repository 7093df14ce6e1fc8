"""The folders whose pictures may be read for an atlas, which may be someone else's: only what lies below them.

Whoever asks questions on the own machine may read these files anyway, and is shown no bytes but those whose digest the
atlas knows. A server reads for others: it opens nothing outside the folders that the person who serves allows.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from unitscope_schemas.entries.corpus import CorpusEntry

_STORE = re.compile("s3://(?:anonymous@)?(?P<bucket>[A-Za-z0-9._-]+)(?:/(?P<key>.*))?", re.DOTALL)
"""Pattern of an address in an object store that says nothing of how it is asked for."""


class OutsideError(PermissionError):
    """A picture lies outside the folders whose pictures may be read: it was not opened."""


@dataclass(frozen=True)
class PictureRoots:
    """Where the pictures of an atlas are: below `root`, or where their addresses lead if these are whole names.

    Of all these only what lies below an `allowed` folder is opened; None allows whatever this process may read.
    """

    root: str
    allowed: tuple[str, ...] | None = None


@dataclass(frozen=True)
class AllowedRoots:
    """The folders that the person who serves an atlas has named.

    Pictures are read below these, and below the atlas's own folder. An atlas whose recorded root lies below none of
    them has been moved: its addresses begin at the first named folder that holds no other of its corpora.
    """

    named: tuple[str, ...] = ()

    def place(self, corpus: CorpusEntry, atlas: str | Path) -> PictureRoots:
        """Return where the pictures of an atlas are, and below what they must lie."""
        allowed = (str(atlas), *self.named)
        free = [name for name in self.named if not any(lies_below(other.root, name) for other in corpus.roots)]
        is_moved = bool(free) and not any(lies_below(corpus.root, name) for name in allowed)
        return PictureRoots(free[0] if is_moved else corpus.root, allowed)


def hidden_roots(corpus: CorpusEntry, pictures: PictureRoots) -> tuple[str, ...]:
    """Return the roots of an atlas whose pictures may not be read, as its manifest names them."""
    places = {corpus.root: pictures.root} | {other.root: other.root for other in corpus.roots[1:]}
    if pictures.allowed is None:
        return ()
    return tuple(root for root, place in places.items() if _says_how(place) or not is_allowed(place, pictures.allowed))


def is_allowed(path: str, roots: tuple[str, ...]) -> bool:
    """Tell whether a path lies below one of some roots."""
    return any(lies_below(path, root) for root in roots)


def lies_below(path: str, root: str) -> bool:
    """Tell whether a path is a root or lies below it, by where links lead; nothing is opened, and no store is asked."""
    if path.startswith("s3:") or root.startswith("s3:"):
        return _is_key_below(path, root)
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    except (ValueError, OSError):  # a zero byte in it
        return False


def _says_how(root: str) -> bool:
    """Tell whether a root in an object store says how it is asked for: it is never asked."""
    return root.startswith("s3:") and ("?" in root or _STORE.fullmatch(root) is None)


def _is_key_below(path: str, root: str) -> bool:
    """Tell whether an address in an object store lies below another; one that says how it is asked for never does."""
    asked, allowed = _STORE.fullmatch(path), _STORE.fullmatch(root)
    if asked is None or allowed is None or asked["bucket"] != allowed["bucket"]:
        return False
    steps, base = (asked["key"] or "").split("/"), (allowed["key"] or "").strip("/")
    if any(step in (".", "..") for step in steps):
        return False
    return not base or steps[: base.count("/") + 1] == base.split("/")
