"""Groups of near duplicates: pictures that differ by no more than a new encoding."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MOST_FLIPPED_BITS = 10
"""Largest count of bits by which the gradient hashes of near duplicates differ."""
MOST_TINT_STEPS = 6
"""Largest difference of the mean colours of near duplicates, in levels of 255."""
_BANDS = 16
_MOST_COMPARED = 64
"""Count of pictures behind it that each is compared with in a larger bucket, in order of hashes."""


def duplicate_groups(hashes: list[bytes], tints: list[bytes]) -> NDArray[np.int64]:
    """Return for each picture the position of the first near duplicate (itself if none comes before it).

    Near: at most 10 of the 256 bits of the gradient hash and 6 of 255 levels of the mean colour apart. Two such
    hashes agree in at least one of 16 bands, so only pictures that share a band are compared.
    """
    count = len(hashes)
    bits = np.frombuffer(b"".join(hashes), np.uint8).reshape(count, -1)
    tint = np.frombuffer(b"".join(tints), np.uint8).reshape(count, 3).astype(np.int16)
    parent = np.arange(count)
    for first, second in _candidates(bits):
        flipped = np.bitwise_count(bits[first] ^ bits[second]).sum(axis=1)
        steps = np.abs(tint[first] - tint[second]).max(axis=1)
        near = (flipped <= MOST_FLIPPED_BITS) & (steps <= MOST_TINT_STEPS)
        for a, b in zip(first[near], second[near], strict=True):
            root_a, root_b = _root(parent, a), _root(parent, b)
            parent[max(root_a, root_b)] = min(root_a, root_b)
    return np.array([_root(parent, position) for position in range(count)], dtype=np.int64)


def duplicate_names(image_ids: pa.ChunkedArray, hashes: list[bytes], tints: list[bytes]) -> pa.Array:
    """Return the name of each picture's group: the id of its first, null where a picture has no near duplicate."""
    groups = duplicate_groups(hashes, tints)
    alone = np.bincount(groups, minlength=len(groups))[groups] == 1
    names = image_ids.take(pa.array(groups)).to_pylist()
    return pa.array(names, pa.string(), mask=alone)


def _candidates(bits: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """List pairs of positions that share a band, one array of pairs per band and distance within it."""
    whole = np.unique(bits, axis=0, return_inverse=True)[1]
    for band in bits.reshape(len(bits), _BANDS, -1).transpose(1, 0, 2):
        key = np.ascontiguousarray(band).view(np.uint16).ravel()
        order = np.lexsort((whole, key))
        for distance in range(1, min(_MOST_COMPARED, len(order))):
            first, second = order[:-distance], order[distance:]
            same = key[first] == key[second]
            if not same.any():
                break
            yield first[same], second[same]


def _root(parent: NDArray[np.int64], position: int) -> int:
    while parent[position] != position:
        parent[position] = parent[parent[position]]
        position = int(parent[position])
    return position
