"""Several peaks of one image are the local maxima of a unit's map, which the model computes again."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas.answers.patches import PatchPage, PatchRow
from unitscope_schemas.geometry import Location
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.ranks import percentile
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session, Subject


def top(session: Session, unit: UnitId, question: TopQuestion) -> PatchPage:
    """Return the page of `patches` with up to `per_image` peaks of each image, the stored one first.

    Further peaks are local maxima of the unit's map, which one forward for each image computes. Peaks of one image have
    one rank; the percentile of each is that of an image with such a peak.
    """
    page, per_image = patches(session.atlas, unit, question), question.per_image
    if per_image == 1 or not page.rows:
        return page
    rows = []
    for row in page.rows:
        image = session.atlas.image_by_id(row.image_id)
        assert image is not None
        activations = session.activation_map(Subject(image, None), unit)
        grid = np.array([[np.nan if value is None else value for value in line] for line in activations.values])
        others = [location for location in local_maxima(grid) if location != (row.row, row.col)][: per_image - 1]
        rows += [
            row,
            *_further(session.atlas, unit, row, image, [(location, float(grid[location])) for location in others]),
        ]
    said = f"{page.note}; " if page.note else ""
    note = f"{said}peaks of an image beyond its first are computed now: local maxima of its map"
    return page.model_copy(update={"rows": rows, "note": note})


def local_maxima(grid: NDArray[np.floating]) -> list[Location]:
    """Return the locations above all of their eight neighbours, the highest first, equal ones in row order.

    Of equal neighbours the first in row order counts; a plain at the map's lowest value has no maximum, nor has what is
    not finite.
    """
    known = np.where(np.isfinite(grid), grid, -np.inf)
    padded = np.pad(known, 1, constant_values=-np.inf)
    height, width = grid.shape
    maxima = np.isfinite(grid) & (known > known[np.isfinite(grid)].min(initial=np.inf))
    for down in range(3):
        for right in range(3):
            neighbour = padded[down : down + height, right : right + width]
            if (down, right) < (1, 1):
                maxima &= known > neighbour
            elif (down, right) > (1, 1):
                maxima &= known >= neighbour
    rows, cols = np.nonzero(maxima)
    order = np.argsort(-known[rows, cols], kind="stable")
    return [Location(row, col) for row, col in zip(rows[order].tolist(), cols[order].tolist(), strict=True)]


def _further(
    atlas: Atlas, unit: UnitId, row: PatchRow, image: ImageEntry, peaks: list[tuple[Location, float]]
) -> list[PatchRow]:
    """Yield the rows of an image's further peaks."""
    placement, field = atlas.placement(image), atlas.field(unit)
    above = atlas.ranked(unit).above(np.array([activation for _, activation in peaks], np.float32))
    count = atlas.unit(unit).image_count
    return [
        replace(
            row,
            activation=activation,
            percentile=percentile(higher, count),
            row=location.row,
            col=location.col,
            box=placement.to_image(field.box_at(location)),
            effective_box=placement.to_image(field.effective_box_at(location)),
            padding=field.padding_at(location),
        )
        for (location, activation), higher in zip(peaks, above.tolist(), strict=True)
    ]
