"""The vectors of all segments of a version, searched as one."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unitscope_pipelines.storage.segments.ranked_rows import read_numbers
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas.entries.segment import Embedding, Segment
from unitscope_services.queries.nearest.segment_vectors import SegmentVectors, Vector

Mask = NDArray[np.bool_]
Nearest = tuple[Sequence[float], Sequence[int]]


class PatchVectors:
    """The pooled embeddings of an atlas, searched by cosine similarity; safe from any number of threads.

    An answer is the ids of the best patch of each of the nearest images, `image · regions + region`, with their scores,
    best first; ties by ascending image. Images that are not `present` (None: all are) are never among them. Every
    segment is asked for as many as are wanted, so that an exact answer is that of one segment of all images.
    """

    def __init__(
        self, store: Store, embedding: Embedding, segments: Sequence[Segment], present: Mask | None = None
    ) -> None:
        self.embedding = embedding
        self._numbers = [read_numbers(store, segment) for segment in segments]
        own = [None if present is None else _of_rows(present, numbers) for numbers in self._numbers]
        self._segments = [
            SegmentVectors(store, embedding, segment.patches, None if mask is None or mask.all() else mask)
            for segment, mask in zip(segments, own, strict=True)
        ]
        self._has_any = [mask is None or bool(mask.any()) for mask in own]
        self.exact = all(segment.exact for segment in self._segments)
        """Whether every search is exact, of all segments."""

    @property
    def factory(self) -> str:
        """What searches: the kinds of the segments' indexes, each once."""
        kinds = [segment.patches.factory for segment in self._segments if not segment.exact]
        return ", ".join(dict.fromkeys(kinds))

    @property
    def recall_at_10(self) -> float:
        """The least recall that was measured of a segment."""
        return min(segment.patches.recall_at_10 for segment in self._segments)

    def best(self, query: Vector, limit: int, exact: bool = False) -> Nearest:
        """Return the nearest images by the indexes, or exactly where there is none or `exact` is set."""
        return self._joined(lambda number: self._segments[number].best(query, limit, exact), limit)

    def best_of(self, chosen: Mask, query: Vector, limit: int, exact: bool = False) -> tuple[*Nearest, bool]:
        """Return the nearest of the chosen images, and whether the search was exact: always, where few are chosen."""
        were_exact = []

        def ask(number: int) -> Nearest:
            own = _of_rows(chosen, self._numbers[number])
            scores, ids, was_exact = self._segments[number].best_of(own, query, limit, exact)
            were_exact.append(was_exact)
            return scores, ids

        return *self._joined(ask, limit), all(were_exact)

    def vector(self, image: int, region: int) -> Vector:
        """Return the stored vector of a region of an image."""
        vector: Vector = self.vectors(np.array([image]), np.array([region]))[0]
        return vector

    def vectors(self, images: NDArray[np.int64], regions: NDArray[np.integer]) -> Vector:
        """Return the stored vectors of one region of each of some images."""
        found = np.empty((len(images), self.embedding.width), np.float32)
        for segment, numbers in zip(self._segments, self._numbers, strict=True):
            rows = images if numbers is None else np.searchsorted(numbers, images)
            here = slice(None) if numbers is None else numbers[np.minimum(rows, len(numbers) - 1)] == images
            found[here] = segment.stored[rows[here] * len(self.embedding.regions) + regions[here]]
        return found

    def _joined(self, ask: Callable[[int], Nearest], limit: int) -> Nearest:
        """Ask every segment that has images to show, and return the best of all."""
        if len(self._segments) == 1:
            return ask(0)
        regions, scores, patches = len(self.embedding.regions), [], []
        for number, numbers in enumerate(self._numbers):
            if self._has_any[number] and numbers is not None:
                own_scores, own = ask(number)
                rows, region = np.divmod(np.asarray(own, np.int64), regions)
                scores.append(np.asarray(own_scores, np.float64))
                patches.append(numbers[rows].astype(np.int64) * regions + region)
        all_scores, all_patches = np.concatenate(scores), np.concatenate(patches)
        order = np.lexsort((all_patches, -all_scores))[:limit]
        return all_scores[order].tolist(), all_patches[order].tolist()


def _of_rows(mask: Mask, numbers: NDArray[np.int32] | None) -> Mask:
    """Return a mask of a version's images as one of the rows of a segment."""
    return mask if numbers is None else mask[numbers]
