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

_METHODS = ("gradient-x-input", "gradient", "deconvnet", "guided")
"""Projection methods in ascending order of preference, among projections of one activation: a guided one shows the
picture also without max-pooling."""
_SHARE_OF_TIME = 0.1
"""Share of time that is spent at most on looking for new pictures: a listing of 12,000 files takes 0.4 s."""


@dataclass(frozen=True)
class LayerPictures:
    """The pictures of one kind that stand for a layer's units."""

    visuals: Mapping[int, Visual]
    """Picture that stands for a unit, by channel."""
    state: str
    """Digest that tells these pictures from others; empty where there are none."""


@dataclass(frozen=True)
class _Listing:
    """What a look at a layer's stored pictures gave, and until when it is believed."""

    files: object
    pictures: Mapping[VisualKind, LayerPictures]
    due: float


class Gallery:
    """The stored pictures of an atlas, from which one of each kind stands for a unit.

    For optimised inputs it is the one that excites its unit most, for projections that of the highest activation.
    Pictures belong to no version of an atlas, so they are looked for again; a listing is believed for ten times as long
    as it took.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listings: dict[str, _Listing] = {}
        self._lock = threading.Lock()

    def pictures(self, layer: str, kind: VisualKind) -> LayerPictures:
        """Return the pictures of one kind; raises AtlasError where what is known about one is damaged."""
        with self._lock:
            listing = self._listings.get(layer)
            if listing is None or time.monotonic() >= listing.due:
                listing = self._listings[layer] = self._list(layer, listing)
            return listing.pictures[kind]

    def _list(self, layer: str, before: _Listing | None) -> _Listing:
        """Look for a layer's stored pictures; where the files are those of the listing before, its pictures stay."""
        started = time.monotonic()
        files = layer_documents(self._store, layer)
        if before is not None and before.files == files:
            pictures = before.pictures
        else:
            visuals = layer_visuals(self._store, layer, files)
            pictures = {kind: _pictures_of(visuals, kind) for kind in ("optimised", "projection")}
        ended = time.monotonic()
        return _Listing(files, pictures, ended + (ended - started) / _SHARE_OF_TIME)


def _pictures_of(visuals: list[Visual], kind: VisualKind) -> LayerPictures:
    """Return for each unit the picture of a kind that ranks highest."""
    chosen: dict[int, Visual] = {}
    for visual in visuals:
        key = visual.key
        if key.channel is None or key.kind != kind or visual.activation is None or key.objective.startswith("-"):
            continue
        known = chosen.get(key.channel)
        if known is None or _rank(visual) > _rank(known):
            chosen[key.channel] = visual
    digests = "\n".join(f"{channel} {chosen[channel].picture.sha256}" for channel in sorted(chosen))
    return LayerPictures(chosen, hashlib.sha256(digests.encode()).hexdigest()[:16] if chosen else "")


def _rank(visual: Visual) -> tuple[float, int, str]:
    """Return what is highest for the picture to show; the name makes the order total."""
    method = visual.key.shown_method
    method_rank = _METHODS.index(method) if method in _METHODS else -1
    return -math.inf if visual.activation is None else visual.activation, method_rank, visual.key.id
