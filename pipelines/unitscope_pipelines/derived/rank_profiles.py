"""Rank profiles: where each image stands among a unit's peaks, and what two sets of units have in common by them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Root, store_of
from unitscope_schemas import tables
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry

_IMAGES_AT_ONCE = 16_384
"""Images that a product of matrices takes at a time, as 64-bit numbers."""


@dataclass(frozen=True)
class Side:
    """An atlas and the images of it that count.

    `positions`: by the image's number in the atlas its place among those, −1 where it does not count.
    """

    atlas: Root
    positions: NDArray[np.int32]
    image_count: int


@dataclass(frozen=True)
class Profiles:
    """Some units of a layer.

    `ranks`, unit × image: twice the rank from below less its mean, equal peaks sharing theirs, so whole numbers whose
    sum is 0; an image without a finite peak stands in the middle. `squares`: the sum of their squares. `tops`,
    unit × place: the first images, −1 behind the last.
    """

    ranks: NDArray[np.int32]
    squares: NDArray[np.float64]
    tops: NDArray[np.int32]


def read_profiles(side: Side, entry: LayerEntry, blocks: range) -> Profiles:
    """The profiles of the units in some blocks of a layer: 4 bytes of memory for each unit and image."""
    counts = read_part(side.atlas, entry.units, ["image_count"])["image_count"].to_numpy()
    counts = counts[blocks.start * BLOCK_UNITS : blocks.stop * BLOCK_UNITS]
    ranks = np.zeros((len(counts), side.image_count), np.int32)
    squares = np.zeros(len(counts))
    tops = np.full((len(counts), tables.exemplar_count(side.image_count)), -1, np.int32)
    for unit, (images, activations) in enumerate(_ranked_units(side, entry, blocks, counts)):
        places = side.positions[images]
        counted = places >= 0
        places, activations = places[counted], activations[counted]
        ranks[unit, places] = centred_ranks(activations)
        squares[unit] = float(np.square(ranks[unit], dtype=np.float64).sum())
        first = places[: exemplars_among(activations, tops.shape[1])]
        tops[unit, : len(first)] = first
    return Profiles(ranks, squares, tops)


def centred_ranks(descending: NDArray[np.float32]) -> NDArray[np.int32]:
    """Twice the rank from below less its mean of descending values; equal values share their mean rank."""
    starts = np.flatnonzero(np.diff(descending, prepend=np.inf))
    ends = np.append(starts[1:], len(descending))[: len(starts)]
    return np.repeat(len(descending) - starts - ends, ends - starts).astype(np.int32)


def exemplars_among(descending: NDArray[np.float32], most: int) -> int:
    """How many of the first `most` images are exemplars: those that peak above the first that is not among them.

    Images that are tied there are told apart by their ids alone; a unit that is zero on nearly all images has only
    those on which it is not.
    """
    if len(descending) <= most:
        return len(descending)
    return int(np.searchsorted(-descending[:most], -descending[most]))


def correlations(a: Profiles, b: Profiles) -> NDArray[np.float32]:
    """Rank correlations (Spearman 1904) of the units of `a` with those of `b`; NaN where all peaks are equal.

    Sums of whole numbers: exact in any order, so two equal units have 1.0, up to 300,000 images; then to 1e-15.
    """
    products = np.zeros((len(a.ranks), len(b.ranks)))
    for start in range(0, a.ranks.shape[1], _IMAGES_AT_ONCE):
        chosen = slice(start, start + _IMAGES_AT_ONCE)
        products += a.ranks[:, chosen].astype(np.float64) @ b.ranks[:, chosen].astype(np.float64).T
    sizes = np.sqrt(np.multiply.outer(a.squares, b.squares))
    sizes[sizes == 0] = np.nan
    found: NDArray[np.float32] = np.clip(products / sizes, -1, 1).astype(np.float32)
    return found


def shared_exemplars(a: Profiles, b: Profiles) -> NDArray[np.float32]:
    """Exemplars that both units have over those that either has (Jaccard); NaN where neither has any."""
    count_a, count_b = (a.tops >= 0).sum(axis=1), (b.tops >= 0).sum(axis=1)
    both = np.empty((len(a.tops), len(b.tops)))
    for unit, top in enumerate(b.tops):
        both[:, unit] = np.isin(a.tops, top[top >= 0]).sum(axis=1)
    either = np.add.outer(count_a, count_b) - both
    either[either == 0] = np.nan
    found: NDArray[np.float32] = (both / either).astype(np.float32)
    return found


def _ranked_units(
    side: Side, entry: LayerEntry, blocks: range, counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Images and activations of each unit, in rank order."""
    remaining = iter(counts.tolist())
    for block in blocks:
        with store_of(side.atlas).hold(entry.ranked[block]) as path, pq.ParquetFile(path, pre_buffer=False) as file:
            group = 0
            for count in (count for _, count in zip(range(BLOCK_UNITS), remaining, strict=False)):
                groups = list(range(group, group + len(tables.group_ends(count)) - 1))
                group += len(groups)
                table: pa.Table = file.read_row_groups(groups, columns=["image", "activation"], use_threads=False)
                yield table["image"].to_numpy(), table["activation"].to_numpy()
