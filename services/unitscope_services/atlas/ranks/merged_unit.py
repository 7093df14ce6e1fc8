"""The ranks of a unit over several segments, merged where they are asked for.

Rank keys order all peaks of a unit, so that the peak at a rank is the one with as many smaller keys in all segments.
Where it lies is narrowed by the first activations of row groups, which footers hold, and then found by bisection of
the keys: a question reads one or two row groups of each segment, wherever among the ranks it asks.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.ranks import activations_of_keys, images_of_keys, rank_keys
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

    def rows(self, first: int, end: int, names: Sequence[str]) -> Rows:
        """Return columns of the segment's ranks from `first` to before `end`."""
        return dict(zip(names, self.at(names, np.arange(first, end)), strict=True))

    def _read_group(self, group: int, names: list[str]) -> Rows:
        columns = super()._read_group(group, names)
        return columns | ({"image": self._numbers[columns["image"]]} if "image" in columns else {})


class MergedUnit:
    """A unit's ranked images over several segments, for one question."""

    def __init__(self, parts: Sequence[tuple[RankedPart, NDArray[np.int32]]], lookup: FirstRanks, channel: int) -> None:
        units = (SegmentUnit(part, channel, numbers) for part, numbers in parts)
        self._segments = [unit for unit in units if unit.count]
        self._count = sum(unit.count for unit in self._segments)
        self._first: Rows = {}
        """The first ranks, which one table holds merged, once they were asked for."""
        self._splits: dict[int, list[int]] = {}
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
        known = np.zeros(len(activations), bool)
        if self._first and self._count:  # all that is above the last of them lies among them
            first = self._first["activation"]
            known = activations >= first[-1]
            counts[known] = np.searchsorted(-first, -activations[known])
        if not known.all():
            for unit in self._segments:
                counts[~known] += unit.above(activations[~known])
        return counts

    def ranks(self, images: NDArray[np.int64], activations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the rank of each of some images, whose finite peaks these are."""
        return sum((unit.ranks(images, activations) for unit in self._segments), np.zeros(len(images), np.int64))

    def _rows(self, first: int, end: int, names: Sequence[str]) -> Rows:
        """Return columns of the ranks from `first` to before `end`; the last ones asked for are remembered."""
        start, stop, rows = self._window
        if not (start <= first and end <= stop and all(name in rows for name in names)):
            start, stop, rows = self._window = first, end, self._merged(first, end, names)
        return {name: rows[name][first - start : end - start] for name in names}

    def _merged(self, first: int, end: int, names: Sequence[str]) -> Rows:
        if end <= tables.FIRST_RANKS:
            self._first = self._first or self._lookup.columns(self._channel)
            return {name: column[first:end] for name, column in self._first.items()}
        needed = list(dict.fromkeys([*names, "activation", "image"]))
        count, firsts = end - first, self._split(first, needed)
        if count > _FEW:
            ends = self._split(end, needed)
        else:  # they are among the next so many of each segment
            ends = [min(start + count, unit.count) for unit, start in zip(self._segments, firsts, strict=True)]
        pieces = [
            unit.rows(start, stop, needed)
            for unit, start, stop in zip(self._segments, firsts, ends, strict=True)
            if start < stop
        ]
        whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in needed}
        keys = rank_keys(whole["activation"], whole["image"])
        if set(needed) == {"activation", "image"}:  # keys hold both
            keys = np.sort(keys)[:count]
            return {"activation": activations_of_keys(keys), "image": images_of_keys(keys)}
        order = np.argsort(keys)[:count]
        return {name: column[order] for name, column in whole.items()}

    def _split(self, rank: int, names: Sequence[str]) -> list[int]:
        """Return how many of the images before a rank each segment has; reads columns there that are shown next."""
        if rank not in self._splits:
            self._splits[rank] = self._counted_before(rank, names)
        return self._splits[rank]

    def _counted_before(self, rank: int, names: Sequence[str]) -> list[int]:
        if rank >= self._count:
            return [unit.count for unit in self._segments]
        low, high = self._bounds(rank)
        least, most = self._below(low), self._below(high + 1)
        while low < high and sum(most) - sum(least) > _FEW:  # the key of the rank is not below `low`, nor above `high`
            middle = (low + high + 1) // 2
            counts = self._below(middle)
            if sum(counts) <= rank:
                low, least = middle, counts
            else:
                high, most = middle - 1, counts
        rows = [unit.rows(first, end, names) for unit, first, end in zip(self._segments, least, most, strict=True)]
        between = [rank_keys(own["activation"], own["image"]) for own in rows]
        key = np.sort(np.concatenate(between))[rank - sum(least)]
        return [count + int(np.searchsorted(keys, key)) for count, keys in zip(least, between, strict=True)]

    def _below(self, key: int) -> list[int]:
        """Return how many keys of each segment are smaller than one."""
        keys = np.array([key])
        image, activation = images_of_keys(keys)[0], activations_of_keys(keys)[0]
        return [unit.below(image, activation) for unit in self._segments]

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
