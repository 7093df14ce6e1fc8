"""What ranks say of a unit: its percentile on an image, its exemplars, and how many of them another unit shares."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def percentile(above: int, image_count: int) -> float:
    """Return the share of a unit's ranked images that peak at most as high as one that `above` images peak above."""
    return (image_count - above) / image_count  # as 1 − above / image_count, but 0.3 is 0.3


def percentiles(above: NDArray[np.int64], image_count: int) -> NDArray[np.float64]:
    """Return the percentile of each of several images of a unit; see `percentile`."""
    shares: NDArray[np.float64] = (image_count - above) / image_count
    return shares


def are_exemplars(units: NDArray[np.integer[Any]], activations: NDArray[np.float32], most: int) -> NDArray[np.bool_]:
    """Tell which of the first images of some units are exemplars: at most `most` of each, and none that is tied.

    Rows come unit by unit, in rank order. Of a unit's first `most` images those are exemplars that peak above the
    first image that is not among them: images that are tied with it are told apart by their ids alone, and a unit
    that is zero on nearly all images has only those on which it is not.
    """
    starts = np.flatnonzero(np.diff(units, prepend=-1))
    ranks = np.arange(len(units)) - np.repeat(starts, np.diff(starts, append=len(units)))
    bars = np.full(int(units.max(initial=0)) + 1, -np.inf, np.float32)
    bars[units[ranks == most]] = activations[ranks == most]
    chosen: NDArray[np.bool_] = (ranks < most) & (activations > bars[units])
    return chosen


def untied_count(descending: NDArray[np.float32], most: int) -> int:
    """Return how many of one unit's first `most` images are exemplars, from its activations in rank order."""
    first = descending[: most + 1]
    return int(are_exemplars(np.zeros(len(first), np.int32), first, most).sum())


def jaccard(
    both: NDArray[np.number[Any]], sizes_a: NDArray[np.int64] | int, sizes_b: NDArray[np.int64] | int
) -> NDArray[np.float64]:
    """Return what two sets have in common over what either has (Jaccard 1901); NaN where both sets are empty.

    `both`: how many members are in both sets; sizes are those of the sets, broadcast against each other.
    """
    either = (sizes_a + sizes_b - both).astype(np.float64)
    either[either == 0] = np.nan
    shares: NDArray[np.float64] = np.asarray(both, np.float64) / either
    return shares
