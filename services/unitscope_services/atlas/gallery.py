"""The stored pictures that stand for a layer's units, one of each kind for a unit; new ones are noticed."""

import hashlib
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from unitscope_pipelines.derived.visuals import layer_documents, layer_visuals
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas.answers.visuals import Visual, VisualKind

_METHODS = ("gradient", "deconvnet", "guided")
"""Of projections of one activation the last is shown: a guided one shows the picture also without max-pooling."""
_SHARE_OF_TIME = 0.1
"""Spent at most on looking for new pictures: a listing of 12,000 files takes 0.4 s."""


@dataclass(frozen=True)
class Shown:
    """By channel the picture that stands for it, and what tells these pictures from others (empty for none)."""

    visuals: Mapping[int, Visual]
    state: str


@dataclass(frozen=True)
class _Looked:
    files: object
    shown: Mapping[VisualKind, Shown]
    due: float


class Gallery:
    """Of optimised inputs the one that excites its unit most; of projections that of the highest activation.

    Pictures belong to no version of an atlas, so they are looked for again; a listing is believed for ten times as
    long as it took.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._looked: dict[str, _Looked] = {}
        self._lock = threading.Lock()

    def shown(self, layer: str, kind: VisualKind) -> Shown:
        """The pictures of one kind; raises AtlasError where what is known about one is damaged."""
        with self._lock:
            looked = self._looked.get(layer)
            if looked is None or time.monotonic() >= looked.due:
                looked = self._looked[layer] = self._look(layer, looked)
            return looked.shown[kind]

    def _look(self, layer: str, before: _Looked | None) -> _Looked:
        started = time.monotonic()
        files = layer_documents(self._store, layer)
        if before is not None and before.files == files:
            shown = before.shown
        else:
            visuals = layer_visuals(self._store, layer, files)
            shown = {kind: _shown(visuals, kind) for kind in ("optimised", "projection")}
        ended = time.monotonic()
        return _Looked(files, shown, ended + (ended - started) / _SHARE_OF_TIME)


def _shown(visuals: list[Visual], kind: VisualKind) -> Shown:
    chosen: dict[int, Visual] = {}
    for visual in visuals:
        key = visual.key
        if key.channel is None or key.kind != kind or visual.activation is None or key.objective.startswith("-"):
            continue
        known = chosen.get(key.channel)
        if known is None or _rank(visual) > _rank(known):
            chosen[key.channel] = visual
    digests = "\n".join(f"{channel} {chosen[channel].picture.sha256}" for channel in sorted(chosen))
    return Shown(chosen, hashlib.sha256(digests.encode()).hexdigest()[:16] if chosen else "")


def _rank(visual: Visual) -> tuple[float, int, str]:
    """What is highest for the picture to show; the name makes the order total."""
    place = _METHODS.index(visual.key.method) if visual.key.method in _METHODS else -1
    return -math.inf if visual.activation is None else visual.activation, place, visual.key.id
