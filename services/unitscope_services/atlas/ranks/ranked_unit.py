"""The ranked rows of a unit, row group by row group: the first from the lookup database, all others from its part."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.entries.part import Part, UnitFooter
from unitscope_schemas.errors import AtlasError
from unitscope_schemas.manifest import BLOCK_UNITS
from unitscope_services.atlas.database import Database
from unitscope_services.atlas.parts import Parts

Array = NDArray[Any]

_FIRST_ROW = "SELECT min(rowid) AS first FROM first_ranks WHERE layer = ?"
_FIRST_RANKS = "SELECT image, activation, row, col FROM first_ranks WHERE rowid BETWEEN $1 AND $2"
_FIRST_OF_ALL = "SELECT unit, image, activation FROM first_ranks WHERE layer = $1 AND rank < $2 ORDER BY unit, rank"
_ACTIVATION = tables.RANKED.get_field_index("activation")


def first_ranks(database: Database, layer: int, count: int) -> dict[str, Array]:
    """Return unit, image and activation of every unit's first ranks, unit by unit in rank order.

    `count` is how many, at most FIRST_RANKS; `layer` is the layer's position in the manifest.
    """
    return database.prepared(_FIRST_OF_ALL, [layer, count])


class FirstRanks:
    """The first ranks of a layer's units in the lookup database.

    They lie there unit by unit in rank order: by the numbers of their rows they are found in half the time that a
    search for the unit and sorting take. `layer` is the layer's position in the manifest; its units have `image_counts`
    ranked images each.
    """

    def __init__(self, database: Database, layer: int, image_counts: NDArray[np.integer[Any]]) -> None:
        self._database, self._layer = database, layer
        self._starts = np.append(0, np.minimum(image_counts, tables.FIRST_RANKS).cumsum())

    def columns(self, channel: int) -> dict[str, Array]:
        """Return all columns of a unit that has ranked images, but its ranks: those are counted from 0."""
        first, end = self._first_row + self._starts[channel : channel + 2]
        return self._database.prepared(_FIRST_RANKS, [first, end - 1])

    @cached_property
    def _first_row(self) -> int:
        return int(self._database.columns(_FIRST_ROW, [self._layer])["first"][0])


class RankedImages(Protocol):
    """A unit's ranked images for one question; raises AtlasError where a part is missing or damaged."""

    def at(self, names: Sequence[str], ranks: Array) -> list[Array]:
        """Return columns at these ranks, in their order."""

    def images(self, first: int, last: int, upwards: bool = False) -> Iterator[tuple[Array, Array]]:
        """Give ranks from `first` to `last` with the images there, some at a time; `upwards` from the last one on."""

    def activations(self) -> NDArray[np.float32]:
        """Return all finite peaks in descending order."""

    def above(self, activations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return for each activation how many images peak above it: the first rank that has it, if one has."""

    def ranks(self, images: NDArray[np.int64], activations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the rank of each of some images, whose finite peaks these are."""


class RankedPart:
    """The ranked part of a block of units, which have `image_counts` ranked images each.

    `footers` are the units' own in the part: where there is one, nothing else of the part is read for a unit.
    """

    def __init__(
        self, parts: Parts, part: Part, image_counts: Sequence[int], footers: Sequence[UnitFooter | None] = ()
    ) -> None:
        self.counts = list(image_counts)
        self._parts, self._part, self._footers = parts, part, footers
        self._ends = np.cumsum([0, *image_counts])
        self._starts: dict[int, Array] = {}
        self._maxima: dict[int, NDArray[np.float32]] = {}

    def starts(self, unit: int) -> Array:
        """Return the ranks between which a unit's row groups lie; units are counted within the block."""
        if unit not in self._starts:
            footer, groups = self._groups(unit)
            rows = [footer.row_group(group).num_rows for group in groups]
            self._starts[unit] = np.cumsum([0, *rows])
            self._check(unit, rows)
        return self._starts[unit]

    def maxima(self, unit: int) -> NDArray[np.float32]:
        """Return the highest activation of each of a unit's row groups."""
        if unit not in self._maxima:
            footer, groups = self._groups(unit)
            statistics = (footer.row_group(group).column(_ACTIVATION).statistics for group in groups)
            self._maxima[unit] = np.array([own.max for own in statistics], np.float32)
        return self._maxima[unit]

    def columns(self, unit: int, group: int, names: Sequence[str]) -> dict[str, Array]:
        """Return columns of one of a unit's row groups."""
        own = self._footer(unit)
        first = 0 if own else self._groups(unit)[1].start
        with self._parts.open_unit(self._part, own) if own else self._parts.open(self._part) as file:
            read = file.read_row_group(first + group, list(names), use_threads=False)
            return {name: read[name].to_numpy() for name in names}

    def activations(self, unit: int) -> NDArray[np.float32]:
        """Return all activations of a unit in descending order."""
        own, (_, groups) = self._footer(unit), self._groups(unit)
        self.starts(unit)  # raises where the row groups are others
        with self._parts.open_unit(self._part, own, whole=True) if own else self._parts.open(self._part) as file:
            read: NDArray[np.float32] = file.read_row_groups(groups, ["activation"], use_threads=False)[0].to_numpy()
        return read

    def _footer(self, unit: int) -> UnitFooter | None:
        return self._footers[unit] if self._footers else None

    def _groups(self, unit: int) -> tuple[pq.FileMetaData, range]:
        """Return a footer, and which row groups of it are a unit's."""
        own = self._footer(unit)
        if own is not None:
            footer = self._parts.unit_footer(self._part, own)
            return footer, range(footer.num_row_groups)
        return self._parts.footer(self._part), range(*self._first_groups[unit : unit + 2])

    def _check(self, unit: int, rows: list[int]) -> None:
        """Raise AtlasError where a unit has other row groups than its ranks make."""
        count = self.counts[unit]
        if sum(rows) != count or rows[:1] != [min(count, tables.FIRST_RANKS)] * (count > 0):
            raise AtlasError(f"part {self._part.path} is damaged: its row groups are not those of its units")

    @cached_property
    def _first_groups(self) -> list[int]:
        """The first row group of each unit, and the last one's end; raises AtlasError where one is of several units."""
        footer = self._parts.footer(self._part)
        ends = np.cumsum([0, *(footer.row_group(group).num_rows for group in range(footer.num_row_groups))])
        if ends[-1] != self._ends[-1] or not np.isin(self._ends, ends).all():
            raise AtlasError(f"part {self._part.path} is damaged: its row groups are not those of its units")
        first: list[int] = np.searchsorted(ends, self._ends).tolist()
        return first


class RankedUnit:
    """A unit's ranked images for one question: what was read is remembered, so that nothing is read twice.

    Raises AtlasError where a part is missing or damaged.
    """

    def __init__(self, part: RankedPart, lookup: FirstRanks | None, channel: int) -> None:
        self._part, self._lookup, self._channel, self._unit = part, lookup, channel, channel % BLOCK_UNITS
        self.count = part.counts[self._unit]
        self._read: dict[tuple[int, str], Array] = {}

    def at(self, names: Sequence[str], ranks: Array) -> list[Array]:
        """Return columns at these ranks, in their order."""
        columns = [np.empty(len(ranks), tables.RANKED.field(name).type.to_pandas_dtype()) for name in names]
        if len(ranks) and ranks.max() < min(self.count, tables.FIRST_RANKS):  # no footer is needed to find these
            return [values[ranks] for values in self._columns(0, names)]
        groups = np.searchsorted(self.starts, ranks, side="right") - 1
        needed = np.unique(groups).tolist()
        for group in needed:
            inside_group = groups == group if len(needed) > 1 else slice(None)
            for column, values in zip(columns, self._columns(group, names), strict=True):
                column[inside_group] = values[ranks[inside_group] - self.starts[group]]
        return columns

    def images(self, first: int, last: int, upwards: bool = False) -> Iterator[tuple[Array, Array]]:
        """Give ranks from `first` to `last` with the images there, group by group; `upwards` from the last one on."""
        groups = np.flatnonzero((self.starts[:-1] <= last) & (self.starts[1:] > first)).tolist()
        for group in groups[::-1] if upwards else groups:
            start, end = self.starts[group : group + 2]
            ranks = np.arange(max(first, start), min(last + 1, end))
            images = self._column(group, "image")[ranks - start]
            yield (ranks[::-1], images[::-1]) if upwards else (ranks, images)

    def activations(self) -> NDArray[np.float32]:
        """Return all finite peaks in descending order."""
        return self._part.activations(self._unit)

    def above(self, activations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return for each activation how many images peak above it: the first rank that has it, if one has."""
        first = self._read.get((0, "activation"))
        if first is not None and len(activations) and activations.min() >= first[-1]:
            return np.searchsorted(-first, -activations)
        groups = np.searchsorted(-self.maxima, -activations) - 1
        counts = np.zeros(len(activations), np.int64)
        for group in np.unique(groups[groups >= 0]).tolist():
            inside_group = groups == group
            counts[inside_group] = self.starts[group] + np.searchsorted(
                -self._column(group, "activation"), -activations[inside_group]
            )
        return counts

    def ranks(self, images: NDArray[np.int64], activations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the rank of each of some images, whose finite peaks these are."""
        return np.array(list(map(self.below, images, activations)), np.int64)

    def below(self, image: np.integer[Any], activation: np.float32) -> int:
        """Return how many of the unit's ranks come before that of a peak, which need not be among them.

        Images are read only where several have that very peak.
        """
        first, last = (int(np.searchsorted(-self.maxima, -activation, side=side)) for side in ("left", "right"))
        # groups from `first` on begin with that very activation: images tell them apart
        group = bisect_left(range(first, last), True, key=lambda own: self._column(own, "image")[0] >= image)
        group += first - 1
        if group < 0:
            return 0
        falling = -self._column(group, "activation")
        tied, end = (int(np.searchsorted(falling, -activation, side=side)) for side in ("left", "right"))
        if tied < end:
            tied += int(np.searchsorted(self._column(group, "image")[tied:end], image))
        return int(self.starts[group]) + tied

    @cached_property
    def starts(self) -> Array:
        """The ranks between which the row groups lie."""
        return self._part.starts(self._unit)

    @cached_property
    def maxima(self) -> NDArray[np.float32]:
        """The first activation of each row group."""
        return self._part.maxima(self._unit)

    def _column(self, group: int, name: str) -> Array:
        return self._columns(group, [name])[0]

    def _columns(self, group: int, names: Sequence[str]) -> list[Array]:
        missing = [name for name in names if (group, name) not in self._read]
        if missing:
            self._read |= {(group, name): values for name, values in self._read_group(group, missing).items()}
        return [self._read[group, name] for name in names]

    def _read_group(self, group: int, names: list[str]) -> dict[str, Array]:
        if self._lookup is not None and not group and len(names) > 1:  # one column comes sooner from the part
            return self._lookup.columns(self._channel)
        return self._part.columns(self._unit, group, names)


class FewRanked:
    """Some images of a unit, asked for as those of `RankedUnit` are: ranks are those among all images.

    `peaks` are the images' finite peaks, by name of column. Reads the activations near them, and image numbers only
    where several images of the unit have the same peak.
    """

    def __init__(self, whole: RankedImages, images: NDArray[np.int64], peaks: dict[str, Array]) -> None:
        self._whole = whole
        ranks = whole.ranks(images, peaks["activation"])
        order = np.argsort(ranks)
        self._ranks = ranks[order]
        self._columns = {name: column[order] for name, column in {"image": images, **peaks}.items()}

    def at(self, names: Sequence[str], ranks: Array) -> list[Array]:
        """Return columns at these ranks of such images, in their order."""
        places = np.searchsorted(self._ranks, ranks)
        return [self._columns[name][places] for name in names]

    def images(self, first: int, last: int, upwards: bool = False) -> Iterator[tuple[Array, Array]]:
        """Give ranks from `first` to `last` of such images with the images there; `upwards` from the last one on."""
        inside = slice(*np.searchsorted(self._ranks, (first, last + 1)))
        ranks, images = self._ranks[inside], self._columns["image"][inside]
        yield (ranks[::-1], images[::-1]) if upwards else (ranks, images)

    def above(self, activations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return for each activation how many of all images peak above it."""
        return self._whole.above(activations)
