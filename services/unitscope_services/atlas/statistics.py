"""What is stored of a layer's units: as arrays of the whole layer, and unit by unit."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.entries.part import UnitFooter
from unitscope_schemas.questions import UnitStatus
from unitscope_services.atlas.rows import rows_of

_KNOTS = {share: position for position, share in enumerate(tables.KNOT_SHARES)}


@dataclass(frozen=True)
class LayerStatistics:
    """The statistics of a layer's units as arrays, in order of channels."""

    ranked: NDArray[np.bool_]
    """Mask of the units that have ranked images, and not the same finite peak on all of them."""
    count: NDArray[np.int64]
    """How many ranked images each unit has."""
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    """Standard deviation of each unit's peaks, 1 where they are all equal."""
    knots: NDArray[np.float32]
    """Quantiles at KNOT_SHARES, unit × share; infinite for a unit without ranked images."""

    @classmethod
    def of(cls, units: pa.Table) -> "LayerStatistics":
        """Return the statistics that a layer's whole units table holds."""
        counts = units["image_count"].to_numpy()
        knots = np.full((len(counts), len(tables.KNOT_SHARES)), np.inf, np.float32)
        knots[counts > 0] = units["knots"].combine_chunks().flatten().to_numpy().reshape(-1, knots.shape[1])
        std = units["std"].to_numpy().astype(np.float64)
        return cls(
            ranked=(counts > 0) & (units["minimum"].to_numpy() != units["maximum"].to_numpy()),
            count=counts,
            mean=units["mean"].to_numpy().astype(np.float64),
            std=np.where(std > 0, std, 1.0),
            knots=knots,
        )


@dataclass(frozen=True)
class SegmentUnits:
    """What is stored of the ranks of a layer's units in one segment, in order of channels."""

    counts: NDArray[np.int64]
    """How many ranks of each unit are stored."""
    footers: list[UnitFooter | None]
    """The footer of each unit's own rows in the ranked part of its block; empty where no unit has one."""

    @classmethod
    def of(cls, units: pa.Table, kept: int | None) -> "SegmentUnits":
        """Return what a segment's table of units says; `kept`: of how many first ranks."""
        counts = units["image_count"].to_numpy()
        stored = units[tables.FOOTER].to_pylist() if tables.FOOTER in units.column_names else []
        footers = [None if own is None else UnitFooter(**own) for own in stored]
        return cls(counts if kept is None else np.minimum(counts, kept), footers)


@dataclass(frozen=True, slots=True)
class TopLabel:
    """A label among the first ranks of a unit, as it was counted at index time."""

    label: str
    count: int
    """Images with the label among the first ranks."""
    share: float
    """Count over the number of first ranks."""
    lift: float
    """The share over the label's share of the corpus."""


class UnitStatistics(NamedTuple):
    """The statistics of one unit's peaks over the corpus: a row of its layer's units table."""

    channel: int
    status: UnitStatus
    image_count: int
    """Images with a finite peak, which are ranked."""
    positive_count: int
    """Images whose peak is above zero."""
    zero_count: int
    """Images whose peak is exactly zero."""
    nonfinite_count: int
    """Images with a NaN or infinite peak."""
    minimum: float | None
    """Lowest finite peak."""
    maximum: float | None
    """Highest finite peak."""
    mean: float | None
    std: float | None
    """Population standard deviation of the finite peaks."""
    knots: NDArray[np.float32]
    """Quantiles at KNOT_SHARES; empty without ranked images."""
    histogram: NDArray[np.int64]
    """Counts in equal bins from minimum to maximum, the last one closed; empty without ranked images."""
    top_labels: list[TopLabel]
    """Labels of the first ranks, the most frequent first; older atlases hold some of constant units too."""

    @classmethod
    def rows(cls, units: pa.Table) -> "list[UnitStatistics]":
        """Return the rows of a units table, or of a part of one."""
        return rows_of(
            cls,
            {
                **{name: units[name].to_pylist() for name in _PLAIN},
                "channel": units["unit"].to_pylist(),
                "knots": _arrays(units["knots"]),
                "histogram": _arrays(units["histogram"]),
                "top_labels": _top_labels(units["top_labels"]),
            },
        )

    @classmethod
    def at(cls, units: pa.Table, channel: int) -> "UnitStatistics":
        """Return one row of a layer's units table; half the time that `rows` takes to read columns of length one."""
        row = units.slice(channel, 1).to_pylist()[0]
        return cls(
            **{name: row[name] for name in _PLAIN},
            channel=row["unit"],
            knots=np.array(row["knots"], np.float32),
            histogram=np.array(row["histogram"], np.int64),
            top_labels=[TopLabel(**label) for label in row["top_labels"]],
        )

    @property
    def positive_share(self) -> float:
        """Share of the ranked images whose peak is above zero; 0 without ranked images."""
        return self.positive_count / max(1, self.image_count)

    @property
    def constant(self) -> bool:
        """Whether all finite peaks are equal, or there are none: the order of such ranks says nothing."""
        return self.minimum == self.maximum

    @property
    def telling_labels(self) -> list[TopLabel]:
        """Labels of the first ranks, the most frequent first; none of a constant unit, whose ranks are no order."""
        return [] if self.constant else self.top_labels

    @property
    def top_label(self) -> str | None:
        """Most frequent label among the first ranks; None where there is no label, and of a constant unit."""
        return self.telling_labels[0].label if self.telling_labels else None

    def quantile(self, share: float) -> float | None:
        """Return the quantile at one of KNOT_SHARES; None without ranked images."""
        return float(self.knots[_KNOTS[share]]) if len(self.knots) else None


_PLAIN = (
    *("status", "image_count", "positive_count", "zero_count", "nonfinite_count"),
    *("minimum", "maximum", "mean", "std"),
)
"""Columns of the units table that hold one value for each unit."""


def _arrays(column: pa.ChunkedArray) -> list[NDArray[np.generic]]:
    """Return each list of a column of numbers as an array, without a copy of the numbers."""
    values, spans = _flat(column)
    numbers = values.to_numpy()
    return [numbers[first:end] for first, end in spans]


def _top_labels(column: pa.ChunkedArray) -> list[list[TopLabel]]:
    """Return the top labels of each unit."""
    values, spans = _flat(column)
    names = [field.name for field in values.type]
    labels = rows_of(TopLabel, {name: values.field(name).to_pylist() for name in names})
    return [labels[first:end] for first, end in spans]


def _flat(column: pa.ChunkedArray) -> tuple[pa.Array, list[tuple[int, int]]]:
    """Return the values of all lists of a column one after the other, and where each list begins and ends."""
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy()
    return lists.flatten(), list(pairwise((offsets - offsets[0]).tolist()))
