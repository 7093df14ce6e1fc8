"""A unit's distribution in examples: equal bands of its images by percentile, some patches of each."""

from itertools import pairwise

import numpy as np

from unitscope_schemas.answers.patches import PatchQuery
from unitscope_schemas.answers.relations import BandPage, BandRow
from unitscope_schemas.errors import UsageError
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.bounded import check_whole
from unitscope_services.queries.exemplars import Exemplars
from unitscope_services.queries.units import patches

MOST_BANDS = 100


def bands(atlas: Atlas, unit: UnitId, count: int, query: PatchQuery) -> BandPage:
    """`query.limit` images from each of `count` bands that hold equally many of the unit's images, highest band first.

    Within a band in the order of the query: from its top, from its bottom, or at random by its seed. Filters and
    near duplicates count within each band. A dead unit has no bands.
    """
    if not 1 <= count <= MOST_BANDS:
        raise UsageError(f"bands is {count}; a distribution is cut into 1 to {MOST_BANDS} bands")
    if query.quantile is not None or query.cursor is not None:
        raise UsageError("bands cover the whole distribution and come on one page: give neither quantile nor cursor")
    check_whole(atlas.manifest, "a distribution in bands")
    first = patches(atlas, unit, query.model_copy(update={"limit": 1, "label": None, "where": ()}))
    total = atlas.unit(unit).image_count
    edges = [round(total * band / count) for band in range(count + 1)] if first.rows else [0]
    rows = []
    for band, (start, end) in enumerate(pairwise(edges), 1):
        exemplars = Exemplars(atlas, unit, query, (start, end - 1))
        ranks = exemplars.following(None, query.limit)[0] if start < end else np.empty(0, np.int64)
        low, high = 1 - band / count, 1 - (band - 1) / count
        rows += [BandRow(**vars(row), band=band, low=low, high=high) for row in exemplars.rows(ranks, total)]
    return BandPage(unit=first.unit, status=first.status, note=first.note, stale_images=first.stale_images, rows=rows)
