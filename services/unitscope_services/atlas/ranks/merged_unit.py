"""The ranks of a unit over several segments, merged where they are asked for.

Rank keys order all peaks of a unit, so that the peak at a rank is the one with as many smaller keys in all segments.
Where it lies is narrowed by the first activations of row groups, which footers hold, and then found by bisection of
the keys: a question reads one or two row groups of each segment, wherever among the ranks it asks.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.ranks import activations_of_keys, rank_keys
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.atlas.ranks.ranked_unit import FirstRanks, RankedPart, RankedUnit

Array = NDArray[Any]
Rows = dict[str, Array]

_AT_ONCE = 32_768
"""Count of ranks that are merged at a time."""
_FEW = 2_048
"""Count of keys among which one is found by sorting them."""


class SegmentUnit(RankedUnit):
    """A unit's ranks in one segment; images are numbered as in the version, so that rank keys of segments compare."""

    def __init__(self, part: RankedPart, channel: int, numbers: NDArray[np.int32]) -> None:
        super().__init__(part, None, channel)
        self._numbers = numbers
        self._keys: dict[int, NDArray[np.int64]] = {}

    @cached_property
    def maxima(self) -> NDArray[np.float32]:
        """The first activation of each row group."""
        return self._part.maxima(self._unit)

    @property
    def starts(self) -> Array:
        """The ranks between which the row groups lie."""
        return self._starts

    def below(self, key: int) -> int:
        """Return how many keys of the segment are smaller than one."""
        activation = activations_of_keys(np.array([key]))[0]
        first, last = (int(np.searchsorted(-self.maxima, -activation, side=side)) for side in ("left", "right"))
        # groups from `first` on begin with that very activation: images tell them apart
        group = bisect_left(range(first, last), True, key=lambda own: self._first_key(own) >= key) + first - 1
        if group < 0:
            return 0
        return int(self._starts[group] + np.searchsorted(self._keys_of(group), key))

    def keys(self, first: int, end: int) -> NDArray[np.int64]:
        """Return the rank keys of the segment's ranks from `first` to before `end`."""
        if first >= end:
            return np.empty(0, np.int64)
        of_first, of_last = (int(np.searchsorted(self._starts, rank, side="right")) - 1 for rank in (first, end - 1))
        keys = np.concatenate([self._keys_of(group) for group in range(of_first, of_last + 1)])
        return keys[first - self._starts[of_first] : end - self._starts[of_first]]

    def rows(self, first: int, end: int, names: Sequence[str]) -> Rows:
        """Return columns of the segment's ranks from `first` to before `end`."""
        return dict(zip(names, self.at(names, np.arange(first, end)), strict=True))

    def _first_key(self, group: int) -> int:
        return int(self._keys_of(group)[0])

    def _keys_of(self, group: int) -> NDArray[np.int64]:
        if group not in self._keys:
            activation, image = self._columns(group, ["activation", "image"])
            self._keys[group] = rank_keys(activation, image)
        return self._keys[group]

    def _read_group(self, group: int, names: list[str]) -> Rows:
        columns = super()._read_group(group, names)
        return columns | ({"image": self._numbers[columns["image"]]} if "image" in columns else {})


class MergedUnit:
    """A unit's ranked images over several segments, for one question."""

    def __init__(self, parts: Sequence[tuple[RankedPart, NDArray[np.int32]]], lookup: FirstRanks, channel: int) -> None:
        units = (SegmentUnit(part, channel, numbers) for part, numbers in parts)
        self._segments = [unit for unit in units if unit.starts[-1]]
        self._count = int(sum(unit.starts[-1] for unit in self._segments))
        self._lookup, self._channel = lookup, channel
        self._window: tuple[int, int, Rows] = (0, 0, {})

    def at(self, names: Sequence[str], ranks: Array) -> list[Array]:
        """Return columns at these ranks, in their order."""
        columns = [np.empty(len(ranks), tables.RANKED.field(name).type.to_pandas_dtype()) for name in names]
        order = np.argsort(ranks, kind="stable")
        for place in np.split(order, np.flatnonzero(np.diff(ranks[order]) > _AT_ONCE) + 1) if len(ranks) else []:
            for first, end in _windows(int(ranks[place[0]]), int(ranks[place[-1]]) + 1):
                own = place[(ranks[place] >= first) & (ranks[place] < end)]
                if len(own):
                    rows = self._rows(first, end, names)
                    for column, name in zip(columns, names, strict=True):
                        column[own] = rows[name][ranks[own] - first]
        return columns

    def images(self, first: int, last: int, upwards: bool = False) -> Iterator[tuple[Array, Array]]:
        """Give ranks from `first` to `last` with the images there, some at a time; `upwards` from the last one on."""
        windows = _windows(first, min(last + 1, self._count))
        for start, end in windows[::-1] if upwards else windows:
            check_time()
            ranks, images = np.arange(start, end), self._rows(start, end, ["image"])["image"]
            yield (ranks[::-1], images[::-1]) if upwards else (ranks, images)

    def activations(self) -> NDArray[np.float32]:
        """Return all finite peaks in descending order."""
        whole = np.concatenate([np.empty(0, np.float32), *(unit.activations() for unit in self._segments)])
        return -np.sort(-whole)

    def above(self, activations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return for each activation how many images peak above it: the first rank that has it, if one has."""
        counts = np.zeros(len(activations), np.int64)
        if not self._count:
            return counts
        first = self._first["activation"]
        known = activations >= first[-1]  # all that is above lies in the one table of first ranks
        counts[known] = np.searchsorted(-first, -activations[known])
        if not known.all():
            for unit in self._segments:
                counts[~known] += unit.above(activations[~known])
        return counts

    def _rows(self, first: int, end: int, names: Sequence[str]) -> Rows:
        """Return columns of the ranks from `first` to before `end`; the last ones asked for are remembered."""
        start, stop, rows = self._window
        if not (start <= first and end <= stop and all(name in rows for name in names)):
            start, stop, rows = self._window = first, end, self._merged(first, end, names)
        return {name: rows[name][first - start : end - start] for name in names}

    def _merged(self, first: int, end: int, names: Sequence[str]) -> Rows:
        if end <= tables.FIRST_RANKS:
            return {name: column[first:end] for name, column in self._first.items()}
        needed = list(dict.fromkeys([*names, "activation", "image"]))
        pieces = [
            unit.rows(start, stop, needed)
            for unit, start, stop in zip(self._segments, self._split(first), self._split(end), strict=True)
            if start < stop
        ]
        whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in needed}
        order = np.argsort(rank_keys(whole["activation"], whole["image"]))
        return {name: column[order] for name, column in whole.items()}

    @cached_property
    def _first(self) -> Rows:
        """The first ranks, which one table holds merged."""
        return self._lookup.columns(self._channel)

    def _split(self, rank: int) -> list[int]:
        """Return how many of the images before a rank each segment has."""
        if rank >= self._count:
            return [int(unit.starts[-1]) for unit in self._segments]
        low, high = self._bounds(rank)
        least, most = self._below(low), self._below(high + 1)
        while low < high and sum(most) - sum(least) > _FEW:  # the key of the rank is not below `low`, nor above `high`
            middle = (low + high + 1) // 2
            counts = self._below(middle)
            if sum(counts) <= rank:
                low, least = middle, counts
            else:
                high, most = middle - 1, counts
        between = [unit.keys(*ends) for unit, *ends in zip(self._segments, least, most, strict=True)]
        key = np.sort(np.concatenate(between))[rank - sum(least)]
        return [count + int(np.searchsorted(keys, key)) for count, keys in zip(least, between, strict=True)]

    def _below(self, key: int) -> list[int]:
        """Return how many keys of each segment are smaller than one."""
        return [unit.below(key) for unit in self._segments]

    def _bounds(self, rank: int) -> tuple[int, int]:
        """Return keys between which that of a rank lies, from the first activations of row groups alone."""
        fences, least, most = self._fences
        upper = int(np.searchsorted(most, rank, side="right")) - 1
        lower = int(np.searchsorted(least, rank, side="right"))
        below = fences[lower] if lower < len(fences) else np.float32(-np.inf)
        low, high = rank_keys(np.array([fences[upper], below], np.float32), np.zeros(2, np.int64)).tolist()
        return low, high

    @cached_property
    def _fences(self) -> tuple[NDArray[np.float32], Array, Array]:
        """The first activations of all row groups in descending order, and how many peaks are above each: the least
        and the most that there can be."""
        fences = -np.unique(-np.concatenate([unit.maxima for unit in self._segments]))
        least, most = np.zeros(len(fences), np.int64), np.zeros(len(fences), np.int64)
        for unit in self._segments:
            groups = np.searchsorted(-unit.maxima, -fences)
            most += unit.starts[groups]
            least += unit.starts[np.maximum(groups - 1, 0)]
        return fences, least, most


def _windows(first: int, end: int) -> list[tuple[int, int]]:
    """Return the ranks between which to merge: the first ones, which lie in one table, then so many at a time."""
    stops = [min(tables.FIRST_RANKS, end)] if first < tables.FIRST_RANKS else []
    start = max(first, tables.FIRST_RANKS)
    stops += [*range(start + _AT_ONCE, end, _AT_ONCE), *([end] if end > start else [])]
    bounds = [first, *stops]
    return [(one, other) for one, other in pairwise(bounds) if one < other]
