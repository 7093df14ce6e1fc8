"""The ranked rows of a unit: its first ranks from the hot database, all others from its ranked file."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas import tables
from services.database import Database

_FIRST_PIECE, _GROWTH = 1_024, 16

Array = NDArray[Any]


class RankedUnit:
    """One unit for one question: what was read last is kept, so that no range of ranks is read twice.

    `layer` is the layer's position in the manifest, `hot_ranks` how many first ranks the hot database has. Raises
    AtlasError where a part is missing or damaged.
    """

    def __init__(self, database: Database, file: str, layer: int, channel: int, hot_ranks: int) -> None:
        self._database, self._hot_ranks = database, hot_ranks
        self._in_file = ("read_parquet(?) WHERE unit = ?", [file, channel])
        self._in_hot = ("first_ranks WHERE layer = ? AND unit = ?", [layer, channel])
        self._read: dict[str, Array] = {"rank": np.empty(0, np.int64)}

    def at(self, names: Sequence[str], ranks: Array) -> list[Array]:
        """Some columns at these ranks, in their order."""
        if not len(ranks):
            return [np.empty(0, tables.RANKED.field(name).type.to_pandas_dtype()) for name in names]
        if not np.isin(ranks, self._read["rank"]).all():
            self._read = self._columns(ranks)
        places = np.searchsorted(self._read["rank"], ranks)
        return [self._read[name][places] for name in names]

    def images(self, first: int, last: int, upwards: bool = False) -> Iterator[tuple[Array, Array]]:
        """Ranks from `first` to `last` with the images there, in growing pieces; `upwards` from the last one on."""
        size = _FIRST_PIECE
        while first <= last:
            low, high = (max(first, last - size + 1), last) if upwards else (first, min(last, first + size - 1))
            source, asked = self._source(high)
            found = self._database.columns(
                f"SELECT rank, image FROM {source} AND rank BETWEEN ? AND ? ORDER BY rank", [*asked, low, high]
            )
            yield (found["rank"][::-1], found["image"][::-1]) if upwards else (found["rank"], found["image"])
            first, last = (first, low - 1) if upwards else (high + 1, last)
            size *= _GROWTH

    def activations(self) -> NDArray[np.float32]:
        """All finite peaks in descending order."""
        source, asked = self._in_file
        return self._database.columns(f"SELECT activation FROM {source} ORDER BY rank", asked)["activation"]

    def first_equal(self, activations: NDArray[np.float32]) -> Array:
        """For each activation, one that occurs, the first rank that has it."""
        source, asked = self._in_file
        found = self._database.columns(
            f"SELECT activation, min(rank) AS rank FROM {source} AND activation IN (SELECT unnest(?::FLOAT[])) "
            "GROUP BY activation ORDER BY activation",
            [*asked, np.unique(activations).tolist()],
        )
        return found["rank"][np.searchsorted(found["activation"], activations)]

    def above(self, activation: float) -> int:
        """How many images peak above this activation."""
        for hot in (True, False) if self._hot_ranks else (False,):
            source, asked = self._in_hot if hot else self._in_file
            found = self._database.rows(
                f"SELECT count(*) AS above FROM {source} AND activation > ?::FLOAT", [*asked, activation]
            )
            if found[0]["above"] < self._hot_ranks:
                break
        return int(found[0]["above"])

    def _columns(self, ranks: Array) -> dict[str, Array]:
        """All columns at these ranks, by rank; of ranks without gaps only the row groups that hold them are read."""
        first, last = int(ranks.min()), int(ranks.max())
        source, asked = self._source(last)
        gaps = last - first >= len(ranks)
        return self._database.columns(
            f"SELECT rank, image, activation, row, col FROM {source} AND rank BETWEEN ? AND ? "
            f"{'AND rank IN (SELECT unnest(?::INTEGER[]))' if gaps else ''} ORDER BY rank",
            [*asked, first, last, *([ranks.tolist()] if gaps else [])],
        )

    def _source(self, last: int) -> tuple[str, list[Any]]:
        return self._in_hot if last < self._hot_ranks else self._in_file
