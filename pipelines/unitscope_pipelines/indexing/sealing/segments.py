"""The segments that a new version takes over from the one before, and the images that make a new one.

Segments merge in tiers: a new one takes in every one that is not larger than it, so that there are at most as many as
the number of images has binary digits, and each image is ranked anew once for each time their number doubles. None has
more images than a limit, which bounds the memory of ranking: those of more than half of it are not taken in, and what
is more than it makes several.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_pipelines.indexing.known_ids import digests
from unitscope_pipelines.indexing.sealing.versions import NewVersion
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import is_present, read_part, sizes_in, write_table
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import Segment
from unitscope_schemas.manifest import Manifest, Receipt

Numbers = NDArray[np.int32]
_PLACE = ["image_id", "shard", "shard_row"]


@dataclass(frozen=True)
class KeptSegment:
    """A segment that stays as it is, and where its images are among those of the new version."""

    segment: Segment
    numbers: Numbers


@dataclass(frozen=True)
class Segmentation:
    """The segments of a new version."""

    previous: Manifest | None
    kept: list[KeptSegment]
    fresh: list[Numbers]
    """Numbers of the images that no kept segment has: a new one is made of each."""

    @property
    def is_same(self) -> bool:
        """Whether the version has the images of the one before, in the same segments."""
        before = [] if self.previous is None else [segment.name for segment in self.previous.segments]
        return not self.fresh and [kept.segment.name for kept in self.kept] == before


def segmentation(
    previous: Manifest | None, store: Store, version: NewVersion, keep: int | None, limit: int, merge: bool = False
) -> Segmentation:
    """Return which segments stay: those all of whose images are there, of the same peaks and vectors, with all parts.

    New ones have at most `limit` images. A bounded version has one segment, which stays where its images are those of
    the new version. `merge`: as few segments as the limit allows shall hold all images.
    """
    images = version.images.images
    everything = np.arange(images.num_rows, dtype=np.int32)
    if keep is not None:
        limit = max(limit, len(everything))
    shards = images.read(["shard"])["shard"]
    renewed = Segmentation(previous, [], cut(everything, shards, limit))
    if previous is None or previous.keep != keep or (merge and len(previous.segments) > fewest(len(everything), limit)):
        return renewed
    kept = _unchanged(previous, store, version)
    fresh_count = len(everything) - sum(len(one.numbers) for one in kept)
    if keep is not None or merge:
        return renewed if fresh_count else Segmentation(previous, kept, [])
    left = staying([len(one.numbers) for one in kept], fresh_count, limit)
    kept = [one for one, stays in zip(kept, left, strict=True) if stays]
    is_fresh = np.ones(len(everything), bool)
    for one in kept:
        is_fresh[one.numbers] = False
    return Segmentation(previous, kept, cut(everything[is_fresh], shards, limit))


def fewest(count: int, limit: int) -> int:
    """Return how many segments so many images need at least."""
    return max(1, -(-count // limit))


def cut(numbers: Numbers, shards: pa.ChunkedArray, limit: int) -> list[Numbers]:
    """Cut images into segments of much the same size: those that a shard scanned stay together, so that ranking reads
    each shard once. `shards`: the shard of each image of the version."""
    if len(numbers) <= limit:
        return [numbers] if len(numbers) else []
    order = pc.sort_indices(shards.take(pa.array(numbers))).to_numpy()
    return [np.sort(numbers[some]) for some in np.array_split(order, fewest(len(numbers), limit))]


def staying(sizes: Sequence[int], new_count: int, limit: int) -> list[bool]:
    """Tell which segments of these sizes stay beside a new one of so many images, which takes in the others.

    Those of more than half of `limit` images always stay.

    >>> staying([1000, 30, 8], 5, 9999), staying([1000, 30, 8], 8, 9999), staying([1000, 30, 25], 25, 9999)
    ([True, True, True], [True, True, False], [True, False, False])
    >>> staying([9, 8], 0, 9999), staying([51, 50], 99, 100)
    ([True, True], [True, False])
    """
    stays = [True] * len(sizes)
    count = new_count
    small = [2 * size <= limit for size in sizes]
    while count and any(
        taken := [stay and few and size <= count for stay, few, size in zip(stays, small, sizes, strict=True)]
    ):
        count += sum(size for size, is_taken in zip(sizes, taken, strict=True) if is_taken)
        stays = [stay and not is_taken for stay, is_taken in zip(stays, taken, strict=True)]
    return stays


def segment_name(atlas_key: str, images: LongTable) -> str:
    """Return the name of a segment of some rows of the images table: equal ones hold equal peaks of equal images."""
    digest = hashlib.sha256(atlas_key.encode())
    for name in ("image_id", "shard", "shard_row"):
        for batch in images.batches([name]):
            digest.update("".join(f"{value}\n" for value in batch[name].to_pylist()).encode())
    return digest.hexdigest()[:16]


def write_numbers(store: Store, segment: str, version: str, numbers: Numbers) -> Part:
    """Write the numbers that a segment's images have in a version."""
    table = pa.table([pa.array(numbers, pa.int32())], schema=tables.NUMBERS)
    return write_table(store, layout.numbers(segment, version), table)


def _unchanged(previous: Manifest, store: Store, version: NewVersion) -> list[KeptSegment]:
    """Return the segments of the previous version all of whose images are in the new one as they were recorded."""
    sizes = sizes_in(store)
    same = pa.array(sorted(_same_shards(previous.shards, version.receipts)), pa.string())
    now = _Places.of(version.images.images.batches(_PLACE), same, "what shards read of files")
    kept = []
    for segment in previous.segments:
        if all(is_present(sizes, part) for part in segment.parts()):
            images = segment.tables.images
            before = _Places.of(read_part(store, images, _PLACE).to_batches(), same, f"part {images.path}")
            if (numbers := now.numbers(before)) is not None:
                kept.append(KeptSegment(segment, numbers))
    return kept


@dataclass(frozen=True)
class _Places:
    """Where images are recorded: 40 bytes for each, in order of ids."""

    ids: NDArray[np.bytes_]
    shards: Numbers
    """Number of the shard among those that recorded the same, −1 for another."""
    rows: Numbers

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch], same: pa.Array, where: str) -> "_Places":
        """Read the places of some images; `same` are the shards that recorded the same as before."""
        ids, shards, rows = [digests([], where)], [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        for batch in batches:
            ids.append(digests(batch["image_id"].to_pylist(), where))
            shards.append(pc.index_in(batch["shard"], value_set=same).fill_null(-1).to_numpy())
            rows.append(batch["shard_row"].to_numpy())
        return cls(np.concatenate(ids), np.concatenate(shards), np.concatenate(rows))

    def numbers(self, before: "_Places") -> Numbers | None:
        """Return the numbers of other images here, None unless all of them are here as they were recorded there."""
        if not len(self.ids):
            return None
        numbers = np.minimum(np.searchsorted(self.ids, before.ids), len(self.ids) - 1).astype(np.int32)
        is_same = (self.ids[numbers] == before.ids) & (before.shards >= 0)
        is_same &= (self.shards[numbers] == before.shards) & (self.rows[numbers] == before.rows)
        return numbers if is_same.all() else None


def _same_shards(before: Iterable[Receipt], now: Iterable[Receipt]) -> set[str]:
    """Return the shards that recorded the same peaks and vectors in both."""
    old, new = _recorded(before), _recorded(now)
    return {shard for shard, digests in new.items() if old.get(shard) == digests}


def _recorded(receipts: Iterable[Receipt]) -> dict[str, list[str]]:
    """Return the digests of what each shard recorded of images."""
    return {
        receipt.shard: [part.sha256 for part in (receipt.scanned, receipt.embeddings, *receipt.peaks.values())]
        for receipt in receipts
        if receipt.forward_count
    }
