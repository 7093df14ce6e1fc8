"""The statistics of a unit, from its ranked activations and the labels of its first images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_schemas import tables

RARE_SHARE = 0.01
"""Share of the images that a unit must be above zero on, not to be rare."""


@dataclass(frozen=True)
class LabelLift:
    """A label among a unit's first ranks."""

    label: str
    count: int
    share: float
    """Share of the first ranks that have the label."""
    lift: float
    """Ratio of that share to the label's share of the corpus."""


@dataclass(frozen=True)
class UnitSummary:
    """A row of the units table, `tables.UNITS`, by its columns."""

    unit: int
    status: str
    image_count: int
    positive_count: int
    zero_count: int
    nonfinite_count: int
    minimum: np.float32 | None = None
    maximum: np.float32 | None = None
    mean: float | None = None
    std: float | None = None
    knots: Sequence[float] | NDArray[np.float32] = ()
    histogram: Sequence[int] | NDArray[np.int64] = ()
    top_labels: Sequence[LabelLift] = ()
    nonfinite_images: Sequence[str] = ()

    def as_row(self) -> dict[str, object]:
        """Return the row as Arrow reads it."""
        return {**vars(self), "top_labels": [vars(label) for label in self.top_labels]}


class Labels:
    """The labels of all images as numbers, for counting; an image with several counts for each."""

    def __init__(self, labels: pa.ChunkedArray) -> None:
        lists = labels.combine_chunks()
        encoded = lists.flatten().dictionary_encode()
        self.names: list[str] = encoded.dictionary.to_pylist()
        self.codes: NDArray[Any] = encoded.indices.to_numpy(zero_copy_only=False)
        self.ends = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False))])
        self.counts = np.bincount(self.codes, minlength=len(self.names))

    def of_first_ranks(self, images: NDArray[np.int32]) -> list[LabelLift]:
        """Count the labels among a unit's first ranks, the most frequent first; ties by lift, then by name."""
        if not self.names or not len(images):
            return []
        first = images[: tables.TOP_LABEL_RANKS]
        codes = [self.codes[self.ends[image] : self.ends[image + 1]] for image in first.tolist()]
        counts = np.bincount(np.concatenate(codes), minlength=len(self.names))
        total, image_count = len(first), len(self.ends) - 1
        labels = [
            LabelLift(
                label=self.names[code],
                count=int(counts[code]),
                share=float(counts[code] / total),
                lift=float(counts[code] / total / (self.counts[code] / image_count)),
            )
            for code in np.flatnonzero(counts)
        ]
        return sorted(labels, key=lambda label: (-label.count, -label.lift, label.label))


def unit_statistics(unit: int, descending: NDArray[np.float32], nonfinite_count: int) -> UnitSummary:
    """Return a unit's statistics from its ranked activations; labels and images are not among them."""
    values = np.ascontiguousarray(descending[::-1])
    not_positive = int(np.searchsorted(values, 0, side="right"))
    counts = UnitSummary(
        unit=unit,
        status=status(values, nonfinite_count),
        image_count=len(values),
        positive_count=len(values) - not_positive,
        zero_count=not_positive - int(np.searchsorted(values, 0)),
        nonfinite_count=nonfinite_count,
    )
    if not len(values):
        return counts
    knots = np.minimum((np.array(tables.KNOT_SHARES) * len(values)).astype(np.int64), len(values) - 1)
    return replace(
        counts,
        minimum=values[0],
        maximum=values[-1],
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        knots=values[knots],
        histogram=histogram(values),
    )


def status(values: NDArray[np.float32], nonfinite_count: int) -> str:
    """Return the status of a unit from its finite peaks in ascending order.

    non-finite: NaN or infinite on some image; dead: the same value on every image; negative-only: never above
    zero; rare: above zero on fewer than 1 % of the images; otherwise live.
    """
    if nonfinite_count:
        return "non-finite"
    if values[0] == values[-1]:
        return "dead"
    if values[-1] <= 0:
        return "negative-only"
    return "rare" if (values > 0).mean() < RARE_SHARE else "live"


def histogram(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count ascending values in equal bins between the lowest and the highest."""
    low, high = float(values[0]), float(values[-1])
    if low == high:
        return np.array([len(values)] + [0] * (tables.HISTOGRAM_BINS - 1))
    inner = np.linspace(low, high, tables.HISTOGRAM_BINS + 1)[1:-1]
    counts: NDArray[np.int64] = np.diff(
        np.searchsorted(values.astype(np.float64), inner), prepend=0, append=len(values)
    )
    return counts
