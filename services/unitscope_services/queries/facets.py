"""Facets are a unit's exemplars in groups that look alike where it peaks: one unit, several things."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas.answers.patches import PatchPage
from unitscope_schemas.answers.relations import FacetPage, FacetRow
from unitscope_schemas.questions import FacetsQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session

_MOST_FACETS = 6
_LEAST_EXEMPLARS = 4
"""Least number of exemplars of a facet, on average: fewer are single pictures rather than a thing."""
LEAST_SILHOUETTE = 0.25
"""Greatest silhouette at which there is no substantial structure (Kaufman & Rousseeuw 1990): the exemplars are one
facet."""


@dataclass(frozen=True)
class Grouping:
    """The facet of each exemplar, 0 for the largest, and how clearly they fall apart."""

    facets: NDArray[np.int64]
    silhouette: float | None

    @classmethod
    def one(cls, count: int, silhouette: float | None = None) -> "Grouping":
        """Return the grouping of so many exemplars in a single facet."""
        return cls(np.zeros(count, np.int64), silhouette)


def facets(session: Session, unit: UnitId, question: FacetsQuestion) -> FacetPage:
    """Return a unit's first exemplars in facets: by facet, largest first, and within it by rank.

    Exemplars are compared by the stored embedding of the region whose centre is nearest to the peak.
    """
    page = patches(session.atlas, unit, TopQuestion(k=question.k))
    grouping = group(_embeddings(session, unit, page)) if page.rows else Grouping.one(0)
    sizes = np.bincount(grouping.facets)
    rows = [
        FacetRow(**vars(row), facet=facet + 1, share=float(sizes[facet] / len(page.rows)))
        for row, facet in zip(page.rows, grouping.facets.tolist(), strict=True)
    ]
    rows.sort(key=lambda row: row.facet)
    return FacetPage(
        unit=page.unit,
        status=page.status,
        note=page.note,
        layer=session.atlas.manifest.embedding.layer,
        stale_images=page.stale_images,
        exemplars=len(rows),
        facets=len(sizes),
        silhouette=grouping.silhouette,
        rows=rows,
    )


def group(vectors: NDArray[np.float32]) -> Grouping:
    """Group vectors of unit length: Ward's tree (1963), cut where the mean silhouette (Rousseeuw 1987) is highest.

    There are two to six groups, of four vectors or more on average; one group where no cut is above LEAST_SILHOUETTE.
    No chance is involved: equal vectors give equal groups.
    """
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import silhouette_score

    count = len(vectors)
    best = Grouping.one(count)
    for number in range(2, min(_MOST_FACETS, count // _LEAST_EXEMPLARS) + 1):
        check_time()
        groups = AgglomerativeClustering(number, linkage="ward").fit_predict(vectors)
        score = float(silhouette_score(vectors, groups))
        if best.silhouette is None or score > best.silhouette:
            best = Grouping(_by_size(groups), score)
    if best.silhouette is not None and best.silhouette <= LEAST_SILHOUETTE:
        return Grouping.one(count, best.silhouette)
    return best


def _by_size(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return groups numbered from the largest on; of equal ones the one with the first vector comes first."""
    names, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    numbers = np.empty(len(names), np.int64)
    numbers[np.lexsort((first, -sizes))] = np.arange(len(names))
    return numbers[groups]


def _embeddings(session: Session, unit: UnitId, page: PatchPage) -> NDArray[np.float32]:
    """Return each exemplar's stored vector of the region nearest to the peak, the smaller of two, in unit length."""
    atlas, regions = session.atlas, np.array(session.atlas.manifest.embedding.regions)
    row, col = (np.array([getattr(exemplar, name) for exemplar in page.rows]) for name in ("row", "col"))
    _, seen, _ = atlas.boxes(unit).at(row, col)
    apart = _doubled_centres(seen)[:, None] - _doubled_centres(regions)[None]
    areas = (regions[:, 2] - regions[:, 0]) * (regions[:, 3] - regions[:, 1])
    nearest = np.array([np.lexsort((areas, distances))[0] for distances in np.square(apart).sum(axis=2)])
    images = atlas.ranked(unit).at(["image"], np.array([exemplar.rank for exemplar in page.rows]))[0].astype(np.int64)
    vectors = session.search.vectors.vectors(images, nearest)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def _doubled_centres(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    return boxes[:, :2] + boxes[:, 2:]
