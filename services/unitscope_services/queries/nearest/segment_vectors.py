"""The vectors of one segment: nearest patches come from a short list of the FAISS index, scored again with all
numbers.
"""

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
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import Embedding, PatchIndex
from unitscope_schemas.errors import AtlasError
from unitscope_services.atlas.deadlines import check_time

_TUNED_FOR = 10
"""Number of images for which probes and short list were tuned."""
_LEAST_SHARE = 0.1
"""Least share of images that must pass a filter for the index to be used: it would find too few of fewer, so they are
searched one by one."""
_LEAST_PRESENT = 0.5
"""Least share of images that must be left for the index to be used: a filtered search of its lists starves with few."""
_SPARE = 32
"""Count of images beside those asked for that are scored in double precision: single precision may swap neighbours."""
_BLOCK_NUMBERS = 1 << 20
"""Count of numbers that an exact scan converts at a time: they stay in the processor's cache."""

Vector = NDArray[np.float32]


class SegmentVectors:
    """The pooled embeddings of a segment, searched by cosine similarity; safe from any number of threads.

    An answer is the ids of the best patch of each of the nearest images, `row · regions + region`, with their scores,
    best first; ties by ascending row. Images that are not `present` (None: all are) are never among them.
    """

    def __init__(
        self, store: Store, embedding: Embedding, patches: PatchIndex, present: NDArray[np.bool_] | None = None
    ) -> None:
        self.store, self.embedding, self.patches = store, embedding, patches
        self._open_parts: list[LocalPart] = []
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
        return len(self.embedding.regions)

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
        wanted = self.patches.vectors.rows, self.embedding.width
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
            check_index_file(file, self.patches, self.embedding.width)
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
        step = max(1, _BLOCK_NUMBERS // self.embedding.width)
        block = np.empty((step, self.embedding.width), np.float32)
        for start in range(0, len(scores), step):
            check_time()
            stored = self.stored[slice(start, start + step) if rows is None else rows[start : start + step]]
            block[: len(stored)] = stored
            scores[start : start + step] = _cosines(block[: len(stored)], query)
        by_image = scores.reshape(-1, regions)
        region = by_image.argmax(axis=1)
        best = by_image.max(axis=1)
        there = len(best)
        if images is None and self._present is not None:
            best[~self._present] = -np.inf
            there = int(self._present.sum())
        order = np.argsort(-best, kind="stable")[: min(limit + _SPARE, there)]
        numbers = order if images is None else images[order]
        return self._scored(numbers * regions + region[order], query, limit)

    def _scored(self, ids: NDArray[np.int64], query: Vector, limit: int) -> tuple[Sequence[float], Sequence[int]]:
        """Return the nearest of some patches, with scores that do not depend on what they were computed beside."""
        scores = _cosines(self.stored[ids].astype(np.float64), query.astype(np.float64))
        order = np.lexsort((ids, -scores))[:limit]
        return scores[order].tolist(), ids[order].tolist()

    def _indexed(self, query: Vector, limit: int) -> tuple[Sequence[float], Sequence[int]]:
        """Search the short list of the index, scored again, each image once.

        The list has room for all regions of `limit` images, so it never holds fewer images than are wanted.
        """
        regions = len(self.embedding.regions)
        share = max(1.0, limit / _TUNED_FOR)
        count = min(len(self.stored), max(limit * regions, round(self.patches.short_list * share)))
        length = np.linalg.norm(query)
        _, short_list = self._index.search(
            (query / length if length else query)[None], count, params=self._probing(share)
        )
        ids = np.sort(short_list[0][short_list[0] >= 0])
        scores, patches = map(np.array, self._scored(ids, query, len(ids)))
        first = np.sort(np.unique(patches // regions, return_index=True)[1])[:limit]
        return scores[first].tolist(), patches[first].tolist()

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
        passes = np.repeat(self._present, len(self.embedding.regions))
        return faiss.IDSelectorBitmap(np.packbits(passes, bitorder="little"))  # type: ignore[call-arg, arg-type]


def _cosines(vectors: NDArray[np.floating[Any]], query: NDArray[np.floating[Any]]) -> Vector:
    """Return cosine similarities; rounding to 16 bits has moved the stored lengths away from one."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) * np.linalg.norm(query)
    scores = (vectors @ query) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return np.asarray(np.clip(scores, -1, 1), np.float32)
