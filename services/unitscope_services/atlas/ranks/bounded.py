"""What a bounded atlas answers: the first ranks of each unit, and words for what would take the others."""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.ranks.ranked_unit import FirstRanks, RankedImages, RankedPart, RankedUnit


@dataclass(frozen=True)
class RankBound:
    """What a bounded atlas knows of a unit's ranks that it does not store."""

    kept: int
    image_count: int
    knots: NDArray[np.float32]


class BoundedRanks(RankedUnit):
    """The first ranks of a unit for one question, all that a bounded atlas stores of them."""

    def __init__(self, part: RankedPart, lookup: FirstRanks, channel: int, bound: RankBound) -> None:
        super().__init__(part, lookup, channel)
        self._bound = bound

    def above(self, activations: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return for each activation how many images peak above it.

        The number is exact where it lies among the stored ranks or between them, else an upper bound by the stored
        quantiles.
        """
        counts, bound = np.asarray(super().above(activations), np.int64), self._bound
        lower = counts >= bound.kept
        shares = np.floor(np.array(tables.KNOT_SHARES) * bound.image_count).astype(np.int64)
        passed = (bound.knots <= activations[lower, None]).sum(axis=1)
        not_above = np.where(passed == 0, 0, np.minimum(shares[passed - 1] + 1, bound.image_count))
        counts[lower] = bound.image_count - not_above
        return counts


def stored_location(ranked: RankedImages, image: int, image_count: int) -> Location | None:
    """Return where a unit peaks on an image; None if that is not among the ranks that are stored."""
    matching_ranks = [ranks[images == image] for ranks, images in ranked.images(0, image_count - 1)]
    ranks = np.concatenate([np.empty(0, np.int64), *matching_ranks])
    if not len(ranks):
        return None
    row, col = ranked.at(["row", "col"], ranks)
    return Location(int(row[0]), int(col[0]))


def bounded_note(manifest: Manifest) -> str | None:
    """Return what a person should know about the answers of a bounded atlas; None for one that stores all ranks."""
    if manifest.kept is None:
        return None
    return f"this atlas keeps the first {manifest.kept} of each unit's {manifest.stored_count} images"


def check_whole(manifest: Manifest, what: str) -> None:
    """Raise UsageError where an answer takes all ranks of a unit and the atlas stores the first alone."""
    if manifest.kept is not None:
        raise UsageError(
            f"{what} takes all ranks of a unit, but {bounded_note(manifest)}: index with --keep all to ask it"
        )


def check_ranks(manifest: Manifest, unit: UnitId, image_count: int, last: int) -> None:
    """Raise UsageError where an answer takes ranks of a unit up to one that the atlas does not store."""
    if manifest.kept is None or last < min(manifest.kept, image_count):
        return
    low = ceil(1e6 * (1 - (manifest.kept - 1) / image_count)) / 1e6
    raise UsageError(
        f"{unit}: that takes rank {last}, but {bounded_note(manifest)}: ask for the highest, or within the quantiles "
        f"{low:g}..1, or index with --keep all"
    )


def missing_peak(manifest: Manifest, unit: UnitId, path: str) -> NotFoundError:
    """Return the error for an image whose peak is not stored: where it lies is not known without the model."""
    return NotFoundError(
        f"where {unit} peaks on {path!r} is not stored: {bounded_note(manifest)}; ask for the image's map, which runs "
        "the model"
    )
