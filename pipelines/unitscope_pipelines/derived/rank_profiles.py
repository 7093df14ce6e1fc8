"""Rank profiles: where each image stands among a unit's peaks, and what two sets of units have in common by them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import tables
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry
from unitscope_schemas.ranks import jaccard, untied_count

_IMAGES_AT_ONCE = 16_384
"""Count of images that a product of matrices takes at a time, as 64-bit numbers."""


@dataclass(frozen=True)
class Side:
    """An atlas and the images of it that count."""

    store: Store
    positions: NDArray[np.int32]
    """Position of each image of the atlas, by its number, among those that count; −1 where it does not count."""
    image_count: int


@dataclass(frozen=True)
class Profiles:
    """The rank profiles of some units of a layer."""

    ranks: NDArray[np.int32]
    """Twice the rank from below less its mean, unit × image, equal peaks sharing theirs, so whole numbers whose sum is
    0; an image without a finite peak stands in the middle."""
    squares: NDArray[np.float64]
    """Sum of the squares of each unit's ranks."""
    exemplars: NDArray[np.int32]
    """Positions of each unit's exemplars in rank order, −1 behind the last."""


class RankedPeaks(NamedTuple):
    """A unit's images and its activations on them, in rank order."""

    images: NDArray[np.int32]
    activations: NDArray[np.float32]


def read_profiles(side: Side, entry: LayerEntry, blocks: range) -> Profiles:
    """Read the profiles of the units in some blocks of a layer: 4 bytes of memory for each unit and image."""
    counts = read_part(side.store, entry.units, ["image_count"])["image_count"].to_numpy()
    counts = counts[blocks.start * BLOCK_UNITS : blocks.stop * BLOCK_UNITS]
    ranks = np.zeros((len(counts), side.image_count), np.int32)
    squares = np.zeros(len(counts))
    exemplars = np.full((len(counts), tables.exemplar_count(side.image_count)), -1, np.int32)
    for unit, (images, activations) in enumerate(_ranked_units(side, entry, blocks, counts)):
        positions = side.positions[images]
        counted = positions >= 0
        positions, activations = positions[counted], activations[counted]
        ranks[unit, positions] = centred_ranks(activations)
        squares[unit] = float(np.square(ranks[unit], dtype=np.float64).sum())
        first = positions[: untied_count(activations, exemplars.shape[1])]
        exemplars[unit, : len(first)] = first
    return Profiles(ranks, squares, exemplars)


def centred_ranks(descending: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return twice the rank from below less its mean of descending values; equal values share their mean rank."""
    starts = np.flatnonzero(np.diff(descending, prepend=np.inf))
    ends = np.append(starts[1:], len(descending))[: len(starts)]
    return np.repeat(len(descending) - starts - ends, ends - starts).astype(np.int32)


def correlations(a: Profiles, b: Profiles) -> NDArray[np.float32]:
    """Return rank correlations (Spearman 1904) of the units of `a` with those of `b`; NaN where all peaks are equal.

    Sums of whole numbers: exact in any order, so two equal units have 1.0, up to 300,000 images; then to 1e-15.
    """
    products = np.zeros((len(a.ranks), len(b.ranks)))
    for start in range(0, a.ranks.shape[1], _IMAGES_AT_ONCE):
        images = slice(start, start + _IMAGES_AT_ONCE)
        products += a.ranks[:, images].astype(np.float64) @ b.ranks[:, images].astype(np.float64).T
    sizes = np.sqrt(np.multiply.outer(a.squares, b.squares))
    sizes[sizes == 0] = np.nan
    clipped: NDArray[np.float32] = np.clip(products / sizes, -1, 1).astype(np.float32)
    return clipped


def shared_exemplars(a: Profiles, b: Profiles) -> NDArray[np.float32]:
    """Return exemplars that both units have over those that either has (Jaccard); NaN where neither has any."""
    count_a, count_b = (a.exemplars >= 0).sum(axis=1), (b.exemplars >= 0).sum(axis=1)
    both = np.empty((len(a.exemplars), len(b.exemplars)))
    for unit, exemplars in enumerate(b.exemplars):
        both[:, unit] = np.isin(a.exemplars, exemplars[exemplars >= 0]).sum(axis=1)
    return jaccard(both, count_a[:, None], count_b).astype(np.float32)


def _ranked_units(side: Side, entry: LayerEntry, blocks: range, counts: NDArray[np.int64]) -> Iterator[RankedPeaks]:
    """Read the ranked peaks of each unit of some blocks; `counts`: how many each unit has."""
    remaining = iter(counts.tolist())
    for block in blocks:
        with side.store.hold(entry.ranked[block]) as path, pq.ParquetFile(path, pre_buffer=False) as file:
            group = 0
            for count in (count for _, count in zip(range(BLOCK_UNITS), remaining, strict=False)):
                groups = list(range(group, group + len(tables.group_ends(count)) - 1))
                group += len(groups)
                table: pa.Table = file.read_row_groups(groups, columns=["image", "activation"], use_threads=False)
                yield RankedPeaks(table["image"].to_numpy(), table["activation"].to_numpy())
