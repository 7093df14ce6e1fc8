"""Groups of near duplicates: pictures that differ by no more than a new encoding."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MOST_FLIPPED_BITS = 10
"""Largest count of bits by which the gradient hashes of near duplicates differ."""
MOST_TINT_STEPS = 6
"""Largest difference of the mean colours of near duplicates, in levels of 255."""
_BANDS, _HASH_BYTES = MOST_FLIPPED_BITS + 1, 32
_MOST_COMPARED = 64
"""Count of pictures behind it that each is compared with in a larger bucket, in order of hashes."""
_ROWS_AT_ONCE, _PAIRS_AT_ONCE = 65_536, 4_000_000

Positions = NDArray[np.int64]


def duplicate_groups(hashes: NDArray[np.uint8], tints: NDArray[np.uint8]) -> Positions:
    """Return for each picture the position of the first near duplicate (itself if none comes before it).

    `hashes` has 32 bytes for each picture, `tints` three. Near: at most 10 of the 256 bits of the gradient hash and 6
    of 255 levels of the mean colour apart. Of 11 bands of a hash ten flipped bits leave at least one as it is, so only
    pictures that share a band are compared. Memory: some 80 bytes for each picture.
    """
    parent = np.arange(len(hashes))
    found: list[tuple[Positions, Positions]] = []
    for first, second in _candidates(hashes):
        apart = parent[first] != parent[second]
        one, other = first[apart], second[apart]
        near = np.bitwise_count(hashes[one] ^ hashes[other]).sum(axis=1, dtype=np.uint16) <= MOST_FLIPPED_BITS
        one, other = one[near], other[near]
        steps = np.abs(tints[one].astype(np.int16) - tints[other]).max(axis=1, initial=0)
        found.append((one[steps <= MOST_TINT_STEPS], other[steps <= MOST_TINT_STEPS]))
        if sum(len(pairs) for pairs, _ in found) > _PAIRS_AT_ONCE:
            parent, found = _joined(parent, found), []
    return _joined(parent, found)


def sketches(batches: Iterable[pa.RecordBatch], count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return gradient hashes and tints, as `duplicate_groups` takes them, of so many pictures."""
    hashes, tints = np.empty((count, _HASH_BYTES), np.uint8), np.empty((count, 3), np.uint8)
    start = 0
    for batch in batches:
        end = start + batch.num_rows
        for name, values in (("gradient_hash", hashes), ("tint", tints)):
            values[start:end] = np.frombuffer(b"".join(batch[name].to_pylist()), np.uint8).reshape(-1, values.shape[1])
        start = end
    return hashes, tints


def duplicate_names(image_ids: pa.ChunkedArray, seen: pa.Table) -> pa.Array:
    """Return the name of each picture's group: the id of its first, null where a picture has no near duplicate.

    `seen` has the gradient hash and the tint of each picture.
    """
    groups = duplicate_groups(*sketches(seen.to_batches(), seen.num_rows))
    alone = np.bincount(groups, minlength=len(groups))[groups] == 1
    return image_ids.take(pa.array(groups, mask=alone))


def _candidates(hashes: NDArray[np.uint8]) -> Iterator[tuple[Positions, Positions]]:
    """Yield pairs of positions that share a band, one array of pairs per band and distance within it."""
    base = np.argsort(np.ascontiguousarray(hashes).view(f"S{_HASH_BYTES}").ravel(), kind="stable").astype(np.int32)
    for number in range(_BANDS):
        keys = _band(hashes, number)
        order = base[np.argsort(keys[base], kind="stable")]  # within a band in order of whole hashes
        in_order = keys[order]
        places = np.arange(len(order), dtype=np.int32)
        for distance in range(1, _MOST_COMPARED):
            places = places[: np.searchsorted(places, len(order) - distance)]
            places = places[in_order[places] == in_order[places + distance]]
            if not len(places):
                break
            yield order[places].astype(np.int64), order[places + distance].astype(np.int64)


def _band(hashes: NDArray[np.uint8], number: int) -> NDArray[np.uint32]:
    """Return a band of each hash: every eleventh bit, for neighbouring bits are alike."""
    band = np.zeros(len(hashes), np.uint32)
    for start in range(0, len(hashes), _ROWS_AT_ONCE):
        rows = hashes[start : start + _ROWS_AT_ONCE].T.copy()
        own = band[start : start + _ROWS_AT_ONCE]
        for bit in range(number, 8 * _HASH_BYTES, _BANDS):
            own <<= 1
            own |= (rows[bit // 8] >> (7 - bit % 8)) & 1
    return band


def _joined(parent: Positions, found: list[tuple[Positions, Positions]]) -> Positions:
    """Return groups, each named by its first position, where the groups of each pair have become one."""
    pairs = np.concatenate([np.empty((2, 0), np.int64), *(np.stack(own) for own in found)], axis=1)
    while True:
        groups = parent[pairs]
        apart = groups[0] != groups[1]
        if not apart.any():
            return parent
        pairs, groups = pairs[:, apart], groups[:, apart]
        parent = parent.copy()
        np.minimum.at(parent, groups.max(axis=0), groups.min(axis=0))
        while not np.array_equal(parent, shorter := parent[parent]):
            parent = shorter
