"""Rank profiles: where each image stands among a unit's peaks, and what two sets of units have in common by them."""

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from unitscope_pipelines.storage.segments.ranked_rows import RankedRows
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import tables
from unitscope_schemas.entries.segment import Segment
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry
from unitscope_schemas.ranks import jaccard, untied_count

_IMAGES_AT_ONCE = 16_384
"""Count of images that a product of matrices takes at a time, as 64-bit numbers."""


@dataclass(frozen=True)
class Side:
    """An atlas and the images of it that count."""

    store: Store
    segments: tuple[Segment, ...]
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


def read_profiles(side: Side, entry: LayerEntry, blocks: range) -> Profiles:
    """Read the profiles of the units in some blocks of a layer: 4 bytes of memory for each unit and image."""
    first = blocks.start * BLOCK_UNITS
    unit_count = min(blocks.stop * BLOCK_UNITS, entry.spec.units) - first
    ranks = np.zeros((unit_count, side.image_count), np.int32)
    squares = np.zeros(unit_count)
    exemplars = np.full((unit_count, tables.exemplar_count(side.image_count)), -1, np.int32)
    rows = RankedRows.of(side.store, entry.spec.name, side.segments)
    for channel, columns in chain.from_iterable(rows.units(block, ["image", "activation"]) for block in blocks):
        unit, positions, activations = channel - first, side.positions[columns["image"]], columns["activation"]
        counted = positions >= 0
        positions, activations = positions[counted], activations[counted]
        ranks[unit, positions] = centred_ranks(activations)
        squares[unit] = float(np.square(ranks[unit], dtype=np.float64).sum())
        leads = positions[: untied_count(activations, exemplars.shape[1])]
        exemplars[unit, : len(leads)] = leads
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
