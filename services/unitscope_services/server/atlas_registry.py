"""The atlases that are served, each in its newest sealed version."""

import logging
import shlex
import threading
import time
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from pathlib import Path

from unitscope_pipelines.storage.allowed_roots import AllowedRoots
from unitscope_pipelines.storage.filesystem import checked_folder
from unitscope_pipelines.storage.stores import AtlasAddress, Store, store_of
from unitscope_schemas import layout
from unitscope_schemas.errors import NotFoundError, UnitscopeError, UsageError, listing
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.encoding.encoder import Turn
from unitscope_services.queries.session import Session

_log = logging.getLogger("unitscope")


class _ServedAtlas:
    """A served atlas: what is open of it, the manifest that was last tried, and when it was last looked for."""

    def __init__(self, store: Store, session: Session, seal: Hashable) -> None:
        self.store, self.session, self.seal = store, session, seal
        self.looking = threading.Lock()
        self.looked = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look for a newer manifest."""
        return time.monotonic() - self.looked >= self.store.stamp_lifetime_s


class AtlasRegistry:
    """The served atlases, opened at once, and each anew when its manifest is another.

    The manifest is looked for at the next request, or for an object store, where looking takes as long as a question,
    at the first one that is a second later. A version that cannot be opened is logged and the one before stays;
    requests under way keep the version that they started with. Pictures are read below the atlas's own folder and the
    `corpora`, and nowhere else: an atlas may be someone else's, and name any file that this process can read.
    """

    def __init__(
        self,
        roots: Sequence[AtlasAddress | Store],
        question_timeout_s: float | None = None,
        turn: Turn = nullcontext,
        trust_code: bool = False,
        corpora: Sequence[str] = (),
        check_parts: bool = True,
        annotations: Path | None = None,
    ) -> None:
        self._check_parts, self._annotations = check_parts, annotations
        self._question_timeout_s, self._turn, self._trust_code = question_timeout_s, turn, trust_code
        self._served: dict[str, _ServedAtlas] = {}
        stores = [store_of(root) for root in roots]
        self._corpora = _corpora_of([store.name for store in stores], corpora)
        for store in stores:
            seal = store.stamp(layout.MANIFEST)
            served = _ServedAtlas(store, self._open(store), seal)
            name = served.session.atlas.name
            if name in self._served:
                raise UsageError(f"two atlases are called {name!r}; they are addressed by their directory's name")
            self._served[name] = served

    @property
    def names(self) -> list[str]:
        """Names of the atlases, in ascending order."""
        return sorted(self._served)

    @property
    def remarks(self) -> list[str]:
        """Sentences on atlases whose pictures are not shown, or looked for elsewhere than was recorded."""
        return [text for served in self._served.values() for text in _remarks(served.session.atlas)]

    def newest(self, name: str) -> Session:
        """Return the newest version of an atlas; raises NotFoundError that names those there are."""
        served = self._served.get(name)
        if served is None:
            known = f"there are {listing(self.names, most=40)}" if self._served else "there are none"
            raise NotFoundError(f"atlas {name!r} is not served here; {known}")
        if served.is_due and served.looking.acquire(blocking=False):
            try:
                self._refresh(name, served)
            finally:
                served.looked = time.monotonic()
                served.looking.release()
        return served.session

    def close(self) -> None:
        """End what runs beside the requests."""
        for served in self._served.values():
            served.session.atlas.close()

    def _refresh(self, name: str, served: _ServedAtlas) -> None:
        try:
            seal = served.store.stamp(layout.MANIFEST)
        except UnitscopeError as error:
            _log.error("atlas %s cannot be looked at, the version that is open stays: %s", name, error)
            return
        if seal in (served.seal, None):
            return
        try:
            served.session = self._open(served.store)
            for remark in _remarks(served.session.atlas):
                _log.warning("%s", remark)
        except UnitscopeError as error:
            _log.error("the new version of atlas %s cannot be opened, the one before stays: %s", name, error)
        served.seal = seal

    def _open(self, store: Store) -> Session:
        corpus = self._corpora[store.name]
        return Session(
            store,
            self._question_timeout_s,
            self._turn,
            self._trust_code,
            corpus=corpus,
            check=self._check_parts,
            public=True,
            annotations=self._annotations,
        )


def _corpora_of(names: Sequence[str], corpora: Sequence[str]) -> dict[str, AllowedRoots]:
    """Return the folders of each atlas's pictures: `ROOT` is for all, `NAME=ROOT` for one, which has no other then.

    Raises UsageError for what is no folder.
    """
    for_all = list[str]()
    for_one: dict[str, list[str]] = {}
    for corpus in corpora:
        name, equals, root = corpus.partition("=")
        if equals and name in names:
            for_one.setdefault(name, []).append(checked_folder(root))
        else:
            for_all.append(checked_folder(corpus))
    return {name: AllowedRoots(tuple(for_one.get(name, for_all))) for name in names}


def _remarks(atlas: Atlas) -> list[str]:
    hidden, recorded = atlas.hidden_roots, atlas.manifest.corpus.root
    if hidden:
        folders = " ".join(f"--corpus {shlex.quote(root) if root.isprintable() else repr(root)}" for root in hidden)
        return [
            f"atlas {atlas.name}: its pictures are not shown, for they lie outside of it, and an atlas may name any "
            f"file; if you know them, add {folders}"
        ]
    if atlas.corpus_root != recorded:
        return [
            f"atlas {atlas.name}: its pictures were below {recorded!r}, and are looked for below {atlas.corpus_root!r}"
        ]
    return []
