"""Nearest patches come from a short list of the FAISS index, scored again with the full vectors."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from unitscope_pipelines.storage.cache import LocalPart
from unitscope_pipelines.storage.index_file import check_index_file
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas.answers.patches import NeighborPage, NeighborRow, SearchInfo
from unitscope_schemas.errors import AtlasError, UsageError
from unitscope_schemas.geometry import Box
from unitscope_schemas.manifest import Part, PatchIndex
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.image_filter import EVERY_IMAGE, ImageFilter
from unitscope_services.atlas.rows import ImageEntry

_TUNED_FOR = 10
"""Number of images for which probes and short list were tuned."""
_LEAST_SHARE = 0.1
"""Least share of images that must pass a filter for the index to be used: it would find too few of fewer, so they are
searched one by one."""
_LEAST_PRESENT = 0.5
"""Least share of images that must be left for the index to be used: a filtered search of its lists starves with few."""
_BLOCK_NUMBERS = 1 << 20
"""Count of numbers that an exact scan converts at a time: they stay in the processor's cache."""

Vector = NDArray[np.float32]


class PatchVectors:
    """The pooled embeddings of an atlas, searched by cosine similarity; safe from any number of threads.

    An answer is the ids of the best patch of each of the nearest images, `image · regions + region`, with their scores,
    best first; ties by ascending image. Images that are not `present` (None: all are) are never among them.
    """

    def __init__(self, store: Store, patches: PatchIndex, present: NDArray[np.bool_] | None = None) -> None:
        self.store = store
        self._open_parts: list[LocalPart] = []
        self.patches = patches
        self._present = present
        self.exact = patches.exact or (present is not None and bool(present.mean() < _LEAST_PRESENT))
        """Whether every search is exact: without an index, or where its lists hold too few images that may be answered.
        """

    def best(self, query: Vector, limit: int, exact: bool = False) -> tuple[Sequence[float], Sequence[int]]:
        """Return the nearest images by the index, or exactly if there is none or `exact` is set."""
        return self._exact(query, limit) if exact or self.exact else self._indexed(query, limit)

    def best_of(
        self, chosen: NDArray[np.bool_], query: Vector, limit: int, exact: bool = False
    ) -> tuple[Sequence[float], Sequence[int], bool]:
        """Return the nearest of the chosen images, and whether the search was exact: always, where few are chosen."""
        share = float(chosen.mean())
        if not (exact or self.exact) and share >= _LEAST_SHARE:
            nearest = self._indexed(query, min(len(chosen), int(2 * limit / share)))
            passing = [(score, patch) for score, patch in zip(*nearest, strict=True) if chosen[patch // self._regions]]
            if len(passing) >= limit:
                return [score for score, _ in passing[:limit]], [patch for _, patch in passing[:limit]], False
        return *self._exact(query, limit, np.flatnonzero(chosen)), True

    @property
    def _regions(self) -> int:
        return len(self.patches.regions)

    def _file(self, part: Part) -> Path:
        """Return a part's file, which stays open from now on."""
        self._open_parts.append(self.store.hold(part))
        return self._open_parts[-1].path

    @cached_property
    def stored(self) -> NDArray[np.float16]:
        """Return all stored vectors, memory-mapped, in order of image × region."""
        try:
            vectors: NDArray[np.float16] = np.load(self._file(self.patches.vectors), mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise AtlasError(f"part {self.patches.vectors.path} is missing or damaged: {error}") from None
        wanted = self.patches.vectors.rows, self.patches.width
        if not isinstance(vectors, np.ndarray) or vectors.shape != wanted or vectors.dtype != np.float16:
            raise AtlasError(f"part {self.patches.vectors.path} is damaged: it is no array of {wanted} in float16")
        return vectors

    @cached_property
    def _index(self) -> faiss.Index:
        if self.patches.index is None:
            raise AtlasError("this atlas has no patch index; ask for exact search")
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        try:
            file = self._file(self.patches.index)
            check_index_file(file, self.patches)
            index = faiss.read_index(str(file), flags)
        except RuntimeError as error:
            raise AtlasError(f"part {self.patches.index.path} is missing or damaged: {error}") from None
        inverted = faiss.extract_index_ivf(index)
        if inverted.invlists is not None:
            lists = faiss.downcast_InvertedLists(inverted.invlists)
            if isinstance(lists, faiss.OnDiskInvertedLists):
                lists.prefetch_nthread = 0
        return index

    def _exact(
        self, query: Vector, limit: int, images: NDArray[np.intp] | None = None
    ) -> tuple[Sequence[float], Sequence[int]]:
        """Search all vectors, or those of some images: 2 ns for each number, 2.5 s for a million of 1,280."""
        regions = self._regions
        rows = None if images is None else (images[:, None] * regions + np.arange(regions)).ravel()
        scores = np.empty(len(self.stored) if rows is None else len(rows), np.float32)
        step = max(1, _BLOCK_NUMBERS // self.patches.width)
        block = np.empty((step, self.patches.width), np.float32)
        for start in range(0, len(scores), step):
            stored = self.stored[slice(start, start + step) if rows is None else rows[start : start + step]]
            block[: len(stored)] = stored
            scores[start : start + step] = _cosines(block[: len(stored)], query)
        by_image = scores.reshape(-1, regions)
        region = by_image.argmax(axis=1)
        best = by_image.max(axis=1)
        if images is None and self._present is not None:
            best[~self._present] = -np.inf
            limit = min(limit, int(self._present.sum()))
        order = np.argsort(-best, kind="stable")[:limit]
        numbers = order if images is None else images[order]
        return best[order].tolist(), (numbers * regions + region[order]).tolist()

    def _indexed(self, query: Vector, limit: int) -> tuple[Sequence[float], Sequence[int]]:
        """Search the short list of the index, scored again, each image once.

        The list has room for all regions of `limit` images, so it never holds fewer images than are wanted.
        """
        regions = len(self.patches.regions)
        share = max(1.0, limit / _TUNED_FOR)
        count = min(len(self.stored), max(limit * regions, round(self.patches.short_list * share)))
        length = np.linalg.norm(query)
        _, short_list = self._index.search(
            (query / length if length else query)[None], count, params=self._probing(share)
        )
        ids = np.sort(short_list[0][short_list[0] >= 0])
        scores = _cosines(np.asarray(self.stored[ids], np.float32), query)
        order = np.argsort(-scores, kind="stable")
        first = np.unique(ids[order] // regions, return_index=True)[1]
        chosen = order[np.sort(first)][:limit]
        return scores[chosen].tolist(), ids[chosen].tolist()

    def _probing(self, share: float) -> faiss.SearchParameters:
        """Return how this search probes, handed over with it: the index itself never changes, so it needs no lock."""
        lists = faiss.extract_index_ivf(self._index).nlist
        inner = faiss.SearchParametersIVF(nprobe=min(lists, round(self.patches.probes * share)), sel=self._selector)  # type: ignore[call-arg]
        if not isinstance(self._index, faiss.IndexPreTransform):
            return inner
        return faiss.SearchParametersPreTransform(index_params=inner)  # type: ignore[call-arg]

    @cached_property
    def _selector(self) -> faiss.IDSelector | None:
        """Return a selector that lets pass the patches of present images, one bit for each patch."""
        if self._present is None:
            return None
        passes = np.repeat(self._present, len(self.patches.regions))
        return faiss.IDSelectorBitmap(np.packbits(passes, bitorder="little"))  # type: ignore[call-arg, arg-type]


class PatchSearch:
    """The nearest patches as rows: where they are in which image."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self.patches = atlas.manifest.patches
        self.vectors = PatchVectors(atlas.store, self.patches, atlas.catalogue.present)

    def nearest(
        self,
        query: NDArray[np.floating[Any]],
        query_box: Box | None,
        limit: int = 9,
        exact: bool = False,
        passing: ImageFilter = EVERY_IMAGE,
    ) -> NeighborPage:
        """Return the images that pass with the most similar patch, each with its best one; ties by ascending image.

        Without `exact` a large atlas answers from its index, unless few images pass; the answer says so with the recall
        measured when the index was built. Raises UsageError for a vector without a direction.
        """
        query = _direction(query)
        chosen = None if passing == EVERY_IMAGE else self.atlas.catalogue.chosen(passing)
        if chosen is None:
            exact = exact or self.vectors.exact
            scores, ids = self.vectors.best(query, limit, exact)
        else:
            scores, ids, exact = self.vectors.best_of(chosen, query, limit, exact)
        scanned = "exact scan" if chosen is None else f"exact scan of the {chosen.sum()} images that pass"
        images = self.atlas.images([int(i) // len(self.patches.regions) for i in ids]) if len(ids) else {}
        rows = []
        for rank, (score, patch) in enumerate(zip(scores, ids, strict=True)):
            number, region = divmod(int(patch), len(self.patches.regions))
            image = images[number]
            rows.append(
                NeighborRow(
                    rank=rank,
                    image_id=image.image_id,
                    path=image.path,
                    label=image.label,
                    labels=image.labels,
                    score=float(score),
                    box=self.atlas.placement(image).to_image(self.patches.regions[region]),
                )
            )
        info = SearchInfo(
            exact=exact,
            layer=self.patches.layer,
            index=scanned if exact else self.patches.factory,
            vectors=self.atlas.catalogue.count * len(self.patches.regions),
            recall_at_10=1.0 if exact else self.patches.recall_at_10,
        )
        return NeighborPage(query_box=query_box, rows=rows, search=info)

    def stored(self, image: ImageEntry, box: Box | None) -> tuple[Vector, Box] | None:
        """Return the stored vector and box of an image's region: the whole view, or one with exactly the given box."""
        placement = self.atlas.placement(image)
        boxes = [placement.to_image(region) for region in self.patches.regions]
        if box is not None and box not in boxes:
            return None
        region = 0 if box is None else boxes.index(box)
        vector = self.vectors.stored[image.image * len(boxes) + region]
        return np.asarray(vector, np.float32), boxes[region]


def _direction(query: NDArray[np.floating[Any]]) -> Vector:
    """Return a vector at unit length, however large or small its numbers are; raises UsageError if it has none."""
    wide = np.asarray(query, np.float64)
    largest = np.abs(wide).max(initial=0)
    if not (np.isfinite(largest) and largest > 0):
        raise UsageError("the vector is zero or not finite: it has no direction, so no patch is near to it")
    wide = wide / largest
    return np.asarray(wide / np.linalg.norm(wide), np.float32)


def _cosines(vectors: Vector, query: Vector) -> Vector:
    """Return cosine similarities; rounding to 16 bits has moved the stored lengths away from one."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) * np.linalg.norm(query)
    scores = (vectors @ query) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return np.asarray(np.clip(scores, -1, 1), np.float32)
