"""The atlases that are served, each in its newest sealed version."""

import logging
import threading
from contextlib import nullcontext
from pathlib import Path

from schemas import layout
from schemas.errors import NotFoundError, UnitscopeError, UsageError, listing
from services.encoder import Turn
from services.subjects import Asked

_log = logging.getLogger("unitscope")

_Seal = tuple[int, int, int]


class _Place:
    """One atlas directory, what is open of it, and the manifest that was last tried."""

    def __init__(self, root: Path, asked: Asked, seal: _Seal | None) -> None:
        self.root, self.asked, self.seal = root, asked, seal
        self.opening = threading.Lock()


class Shelf:
    """Opens all atlases at once, and one anew when its manifest on disk is another.

    A version that cannot be opened is logged and the one before stays; requests under way keep the version
    that they started with.
    """

    def __init__(
        self,
        roots: tuple[Path, ...],
        question_timeout_s: float | None = None,
        turn: Turn = nullcontext,
        trust_code: bool = False,
    ) -> None:
        self._question_timeout_s, self._turn, self._trust_code = question_timeout_s, turn, trust_code
        self._places: dict[str, _Place] = {}
        for root in roots:
            seal = _seal(root)
            place = _Place(root, self._open(root), seal)
            name = place.asked.atlas.name
            if name in self._places:
                raise UsageError(f"two atlases are called {name!r}; they are addressed by their directory's name")
            self._places[name] = place

    @property
    def names(self) -> list[str]:
        return sorted(self._places)

    def newest(self, name: str) -> Asked:
        """The newest version of an atlas; raises NotFoundError that names those there are."""
        place = self._places.get(name)
        if place is None:
            known = f"there are {listing(self.names, most=40)}" if self._places else "there are none"
            raise NotFoundError(f"atlas {name!r} is not served here; {known}")
        seal = _seal(place.root)
        if seal not in (place.seal, None) and place.opening.acquire(blocking=False):
            try:
                place.asked = self._open(place.root)
            except UnitscopeError as error:
                _log.error("the new version of atlas %s cannot be opened, the one before stays: %s", name, error)
            finally:
                place.seal = seal
                place.opening.release()
        return place.asked

    def close(self) -> None:
        """End what runs beside the requests."""
        for place in self._places.values():
            place.asked.atlas.close()

    def _open(self, root: Path) -> Asked:
        return Asked(root, self._question_timeout_s, self._turn, self._trust_code)


def _seal(root: Path) -> _Seal | None:
    """What tells two manifests apart without reading them; None while there is none."""
    try:
        stat = (root / layout.MANIFEST).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
