"""How many of the truly nearest images a patch index finds, measured on the atlas's own vectors."""

from dataclasses import dataclass, field

import faiss
import numpy as np
from numpy.typing import NDArray

from unitscope_pipelines.indexing.patches.vectors import VectorFile, Vectors

RECALL_AT = 10
"""Count of nearest images that recall is measured on."""
WANTED_RECALL = 0.99
QUERIES = 1000
"""Count of queries, enough to state 0.99: shares of found images scatter by at most 0.1 about a mean of 0.99 (all ten
or none), so the mean of 1,000 is known to 0.005 with 95 % confidence even then, to 0.002 where misses are single."""
_CONFIDENCE = 1.645
"""Count of standard errors below the mean at which the wanted recall is reached with 95 % confidence."""
_CODES_PER_CANDIDATE = 64
"""Count of codes that are read in the time a candidate is scored again: its vector is elsewhere in the file."""
_TOLERANCE = 1e-6
"""Difference of scores by rounding only: such scores are equal, and equal scores count as found."""


@dataclass
class Truth:
    """The ten best other images of each query, by exact search over all vectors, fed block by block."""

    queries: Vectors
    """Vectors that are searched with, query × number."""
    query_images: NDArray[np.int64]
    """Image that each query is of, which is left out; −1 for none."""
    regions: int
    best: Vectors = field(init=False)
    """Scores of the ten best images, query × image."""

    def __post_init__(self) -> None:
        self.best = np.full((len(self.queries), RECALL_AT), -np.inf, np.float32)

    def add(self, start: int, block: Vectors) -> None:
        """Take a block of whole images into account; block[0] is the first region of image `start / regions`."""
        scores = self.queries @ block[:: self.regions].T
        for region in range(1, self.regions):
            np.maximum(scores, self.queries @ block[region :: self.regions].T, out=scores)
        images = self.query_images - start // self.regions
        inside = np.flatnonzero((images >= 0) & (images < scores.shape[1]))
        scores[inside, images[inside]] = -np.inf
        self.best = np.partition(np.hstack([self.best, scores]), -RECALL_AT, axis=1)[:, -RECALL_AT:]

    def recall(self, index: faiss.Index, vectors: VectorFile, short_lists: list[int]) -> NDArray[np.float64]:
        """Return the share of the ten best images among so many of the index's candidates, query × short list.

        A query's own image takes its place among the candidates, as in an answer, but never counts as found.
        """
        least, wanted = self.best.min(axis=1), np.isfinite(self.best).sum(axis=1)
        shares = np.ones((len(self.queries), len(short_lists)))
        _, candidates = index.search(self.queries, max(short_lists))
        for number, query in enumerate(self.queries):
            ids = candidates[number][candidates[number] >= 0]
            images = ids // self.regions
            near = (vectors.rows(ids) @ query >= least[number] - _TOLERANCE) & (images != self.query_images[number])
            first = np.flatnonzero(near)[np.unique(images[near], return_index=True)[1]]
            if wanted[number]:
                counts = [(first < length).sum() for length in short_lists]
                shares[number] = np.minimum(1.0, np.array(counts) / wanted[number])
        return shares


@dataclass(frozen=True)
class Tuning:
    """How an index is asked for ten images, and the recall that this reaches."""

    probes: int
    """Count of lists to search."""
    short_list: int
    """Count of candidates to score again."""
    recall: float


def tune(index: faiss.Index, vectors: VectorFile, truth: Truth) -> Tuning:
    """Return the cheapest tuning whose recall of the ten best images is as wanted, else that of the highest recall.

    All regions of nine images may stand before the tenth image, so a list has room for ten whole images at least.
    """
    inverted = faiss.extract_index_ivf(index)
    short_lists = sorted({min(RECALL_AT * vectors.regions * factor, vectors.count) for factor in (1, 2, 4, 8)})
    codes_per_list = vectors.count / inverted.nlist
    cheapest, best = np.inf, Tuning(0, 0, -1.0)
    most = inverted.nlist.bit_length() - 1
    for probes in [2**power for power in range(min(3, most), most + 1)]:
        if probes * codes_per_list + _CODES_PER_CANDIDATE * short_lists[0] >= cheapest:
            break
        inverted.nprobe = probes
        for short_list, shares in zip(short_lists, truth.recall(index, vectors, short_lists).T, strict=True):
            tuning = Tuning(probes, short_list, float(shares.mean()))
            cost = probes * codes_per_list + _CODES_PER_CANDIDATE * short_list
            if tuning.recall - _CONFIDENCE * shares.std() / len(shares) ** 0.5 >= WANTED_RECALL and cost < cheapest:
                cheapest, best = cost, tuning
            elif cheapest == np.inf and tuning.recall > best.recall:
                best = tuning
    return best
