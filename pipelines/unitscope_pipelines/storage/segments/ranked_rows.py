"""The ranked rows of units over all segments of a version, in rank order: what whole units are read by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import Segment
from unitscope_schemas.manifest import BLOCK_UNITS
from unitscope_schemas.ranks import rank_keys

Columns = dict[str, NDArray[Any]]

_UNIT = tables.RANKED.get_field_index("unit")


@dataclass(frozen=True)
class RankedRows:
    """The ranked rows of one layer over some segments: images are those of the version, ranks among all of them.

    Memory: about 40 bytes for each image while one unit is merged of several segments, and 4 for its number.
    """

    store: Store
    layer: str
    segments: tuple[Segment, ...]
    numbers: tuple[NDArray[np.int32] | None, ...]

    @classmethod
    def of(cls, store: Store, layer: str, segments: Sequence[Segment]) -> "RankedRows":
        """Read where the images of the segments are among those of the version."""
        return cls(store, layer, tuple(segments), tuple(read_numbers(store, segment) for segment in segments))

    @property
    def blocks(self) -> range:
        """The numbers of the layer's blocks of units."""
        return range(len(self.segments[0].layers[self.layer].ranked))

    def parts(self) -> Iterator[Part]:
        """Yield every part that is read."""
        for segment in self.segments:
            yield from filter(None, (segment.numbers, *segment.layers[self.layer].ranked))

    def units(self, block: int, columns: Sequence[str], first: int | None = None) -> Iterator[tuple[int, Columns]]:
        """Yield each unit of a block that has ranks, with columns of its rows in rank order; `first`: of so many."""
        pieces = [self._pieces(number, block, columns, first) for number in range(len(self.segments))]
        for unit in range(block * BLOCK_UNITS, (block + 1) * BLOCK_UNITS):
            own = [piece for per_unit in pieces if (piece := next(per_unit)) is not None]
            if own:
                yield unit, _merged(own, columns, first)

    def _pieces(self, number: int, block: int, columns: Sequence[str], first: int | None) -> Iterator[Columns | None]:
        """Yield the rows of each unit of a block in one segment, None where a unit has none."""
        part, numbers = self.segments[number].layers[self.layer].ranked[block], self.numbers[number]
        needed = list(columns)
        if len(self.segments) > 1 and needed != ["activation"]:
            needed = list(dict.fromkeys([*columns, "activation", "image"]))
        with self.store.hold(part) as path, pq.ParquetFile(path, pre_buffer=False) as file:
            groups = _groups_of_units(file.metadata)
            for unit in range(block * BLOCK_UNITS, (block + 1) * BLOCK_UNITS):
                if unit not in groups:
                    yield None
                    continue
                own = groups[unit] if first is None else _first_groups(file.metadata, groups[unit], first)
                table = file.read_row_groups(own, columns=needed, use_threads=False)
                rows = {name: table[name].to_numpy()[:first] for name in needed}
                if numbers is not None and "image" in rows:
                    rows["image"] = numbers[rows["image"]]
                yield rows


def read_numbers(store: Store, segment: Segment) -> NDArray[np.int32] | None:
    """Read the number of each row's image of a segment, None where row n is image n."""
    if segment.numbers is None:
        return None
    numbers: NDArray[np.int32] = read_part(store, segment.numbers)["image"].to_numpy()
    return numbers


def _merged(pieces: list[Columns], columns: Sequence[str], first: int | None) -> Columns:
    """Return rows of several segments in rank order."""
    if len(pieces) == 1:
        return {name: pieces[0][name] for name in columns}
    whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    if "image" not in whole:
        return {"activation": -np.sort(-whole["activation"])[:first]}
    order = np.argsort(rank_keys(whole["activation"], whole["image"]))[:first]
    return {name: whole[name][order] for name in columns}


def _groups_of_units(footer: pq.FileMetaData) -> dict[int, list[int]]:
    """Return the row groups of each unit of a ranked part."""
    units = (footer.row_group(group).column(_UNIT).statistics.min for group in range(footer.num_row_groups))
    return {unit: [group for group, _ in own] for unit, own in groupby(enumerate(units), lambda pair: pair[1])}


def _first_groups(footer: pq.FileMetaData, groups: list[int], first: int) -> list[int]:
    """Return as many of a unit's row groups as hold its first ranks."""
    ends = np.cumsum([footer.row_group(group).num_rows for group in groups])
    return groups[: int(np.searchsorted(ends, first)) + 1]
