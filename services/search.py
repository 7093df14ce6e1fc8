"""Nearest patches: a short list from the FAISS index, scored again with the full vectors."""

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from schemas.errors import AtlasError, UsageError
from schemas.geometry import Box, Placement
from schemas.web import NeighborPage, NeighborRow, SearchInfo
from services.atlas import Atlas

_SHORT_LIST = 200
_BLOCK = 65_536

Vector = NDArray[np.float32]


class PatchSearch:
    """The pooled embeddings of an atlas, searched by cosine similarity; exact or by the index."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self.patches = atlas.manifest.patches
        self._lock = threading.Lock()

    def nearest(self, query: Vector, query_box: Box | None, limit: int = 9, exact: bool = False) -> NeighborPage:
        """The images with the most similar patch, each with its best one; ties by ascending image.

        Without `exact` a large atlas answers from its index, and says so with the recall measured when built.
        """
        exact = exact or self.patches.exact
        scores, ids = self._exact(query, limit) if exact else self._indexed(query, limit)
        images = self.atlas.images([int(i) // len(self.patches.regions) for i in ids]) if len(ids) else {}
        rows = []
        for rank, (score, patch) in enumerate(zip(scores, ids, strict=True)):
            number, region = divmod(int(patch), len(self.patches.regions))
            image = images[number]
            rows.append(
                NeighborRow(
                    rank=rank,
                    **{name: image[name] for name in ("image_id", "path", "label")},
                    score=float(score),
                    box=self.atlas.placement(image).to_image(self.patches.regions[region]),
                )
            )
        info = SearchInfo(
            exact=exact,
            layer=self.patches.layer,
            index="exact scan" if exact else self.patches.factory,
            vectors=self.patches.vectors.rows,
            recall_at_10=1.0 if exact else self.patches.recall_at_10,
        )
        return NeighborPage(query_box=query_box, rows=rows, search=info)

    def stored(self, image: dict[str, Any], box: Box | None) -> tuple[Vector, Box] | None:
        """The stored vector and box of an image's region: the whole view, or one whose box is asked for."""
        placement = self.atlas.placement(image)
        boxes = [placement.to_image(region) for region in self.patches.regions]
        if box is not None and box not in boxes:
            return None
        region = 0 if box is None else boxes.index(box)
        vector = self.vectors[image["image"] * len(boxes) + region]
        return np.asarray(vector, np.float32), boxes[region]

    @cached_property
    def vectors(self) -> NDArray[np.float16]:
        """All stored vectors, memory-mapped, in order of image × region."""
        try:
            vectors: NDArray[np.float16] = np.load(self.atlas.root / self.patches.vectors.path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise AtlasError(f"part {self.patches.vectors.path} is missing or damaged: {error}") from None
        return vectors

    @cached_property
    def _index(self) -> faiss.Index:
        if self.patches.index is None:
            raise AtlasError("this atlas has no patch index; ask for exact search")
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        index = faiss.read_index(str(self.atlas.root / self.patches.index.path), flags)
        inverted = faiss.extract_index_ivf(index)
        inverted.nprobe = self.patches.probes
        if inverted.invlists is not None:
            lists = faiss.downcast_InvertedLists(inverted.invlists)
            if isinstance(lists, faiss.OnDiskInvertedLists):
                lists.prefetch_nthread = 0
        return index

    def _exact(self, query: Vector, limit: int) -> tuple[Sequence[float], Sequence[int]]:
        """Best region of every image by a scan over all vectors, then the best images."""
        regions = len(self.patches.regions)
        image_count = len(self.vectors) // regions
        best = np.empty(image_count, np.float32)
        region = np.empty(image_count, np.int64)
        step = max(1, _BLOCK // regions)
        for start in range(0, image_count, step):
            stop = min(start + step, image_count)
            block = np.asarray(self.vectors[start * regions : stop * regions], np.float32)
            scores = _cosines(block, query).reshape(stop - start, regions)
            region[start:stop] = scores.argmax(axis=1)
            best[start:stop] = scores.max(axis=1)
        order = np.argsort(-best, kind="stable")[:limit]
        return best[order].tolist(), (order * regions + region[order]).tolist()

    def _indexed(self, query: Vector, limit: int) -> tuple[Sequence[float], Sequence[int]]:
        """The short list of the index, re-ranked, each image once."""
        regions = len(self.patches.regions)
        count = min(len(self.vectors), max(_SHORT_LIST, 2 * limit * regions))
        with self._lock:
            _, found = self._index.search(query[None], count)
        ids = np.sort(found[0][found[0] >= 0])
        scores = _cosines(np.asarray(self.vectors[ids], np.float32), query)
        order = np.argsort(-scores, kind="stable")
        first = np.unique(ids[order] // regions, return_index=True)[1]
        chosen = order[np.sort(first)][:limit]
        return scores[chosen].tolist(), ids[chosen].tolist()


def _cosines(vectors: Vector, query: Vector) -> Vector:
    """Cosine similarities; rounding to 16 bits has moved the stored lengths away from one."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    return np.asarray((vectors @ query) / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def checked_box(box: Box, placement: Placement) -> Box:
    """The part of an original box that the network sees, in input pixels; raises UsageError if there is none."""
    size = placement.image
    if not box.inside(size):
        raise UsageError(
            f"box {','.join(map(str, box))} is not within the picture: "
            f"0,0 to {size.height},{size.width} as top,left,bottom,right, not empty"
        )
    seen = placement.to_input(box)
    if min(seen.size) <= 0:
        raise UsageError(f"box {','.join(map(str, box))} lies outside what the network sees: {placement.seen}")
    return seen
