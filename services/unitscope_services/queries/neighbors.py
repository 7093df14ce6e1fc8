"""The nearest patches as rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas.answers.patches import NeighborPage, NeighborRow, SearchInfo
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Box
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.image_filter import EVERY_IMAGE, ImageFilter
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.queries.nearest.patch_vectors import PatchVectors

Vector = NDArray[np.float32]


class PatchSearch:
    """The nearest patches as rows: where they are in which image."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self.embedding = atlas.manifest.embedding
        manifest = atlas.manifest
        self.vectors = PatchVectors(atlas.store, self.embedding, manifest.segments, atlas.catalogue.present)

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
        images = self.atlas.images([int(i) // len(self.embedding.regions) for i in ids]) if len(ids) else {}
        rows = []
        for rank, (score, patch) in enumerate(zip(scores, ids, strict=True)):
            number, region = divmod(int(patch), len(self.embedding.regions))
            image = images[number]
            rows.append(
                NeighborRow(
                    rank=rank,
                    image_id=image.image_id,
                    path=image.path,
                    label=image.label,
                    labels=image.labels,
                    score=float(score),
                    box=self.atlas.placement(image).to_image(self.embedding.regions[region]),
                )
            )
        info = SearchInfo(
            exact=exact,
            layer=self.embedding.layer,
            index=scanned if exact else self.vectors.factory,
            vectors=self.atlas.catalogue.count * len(self.embedding.regions),
            recall_at_10=1.0 if exact else self.vectors.recall_at_10,
        )
        return NeighborPage(query_box=query_box, rows=rows, search=info)

    def stored(self, image: ImageEntry, box: Box | None) -> tuple[Vector, Box] | None:
        """Return the stored vector and box of an image's region: the whole view, or one with exactly the given box."""
        placement = self.atlas.placement(image)
        boxes = [placement.to_image(region) for region in self.embedding.regions]
        if box is not None and box not in boxes:
            return None
        region = 0 if box is None else boxes.index(box)
        return self.vectors.vector(image.image, region), boxes[region]


def _direction(query: NDArray[np.floating[Any]]) -> Vector:
    """Return a vector at unit length, however large or small its numbers are; raises UsageError if it has none."""
    wide = np.asarray(query, np.float64)
    largest = np.abs(wide).max(initial=0)
    if not (np.isfinite(largest) and largest > 0):
        raise UsageError("the vector is zero or not finite: it has no direction, so no patch is near to it")
    wide = wide / largest
    return np.asarray(wide / np.linalg.norm(wide), np.float32)
