"""What ranks say of a unit: its percentile on an image, its exemplars, and how many of them another unit shares."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rank_keys(activations: NDArray[np.float32], images: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return a whole number of 64 bits for each finite peak; in ascending order they are in rank order.

    Ranks descend by activation, ties ascend by image. Above stand the bits of the activation, which order like floats
    once those of negative ones are flipped; below stands the image. To sort such numbers takes a tenth of an argsort.
    """
    keys = np.invert(_flipped((activations + np.float32(0)).view(np.int32))).astype(np.int64)
    keys <<= 32
    keys |= images
    return keys


def images_of_keys(keys: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the images that rank keys hold."""
    return keys.astype(np.int32)


def activations_of_keys(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the activations that rank keys hold; those of −0 are 0."""
    return _flipped(np.invert((keys >> 32).astype(np.int32))).view(np.float32)


def _flipped(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Turn the bits of floats into whole numbers of the same order, and back."""
    return bits ^ (bits >> 31 & 0x7FFFFFFF)


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
