"""What an image excites: its units by percentile."""

import heapq
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from schemas import tables
from schemas.geometry import Location, Placement
from schemas.web import ExplainPage, ExplainRow
from services.atlas import Atlas


class Candidate(NamedTuple):
    """A unit that a picture excites: its peak, images ranked, bounds of its percentile, deviations above its mean."""

    layer: str
    channel: int
    activation: float
    image_count: int
    at_least: float
    at_most: float
    deviation: float


Cells = dict[str, pa.Table]
"""By layer, in order of channels: activation, row and col of every unit's peak on one picture."""


def explain(atlas: Atlas, cells: Cells, placement: Placement, layer: str | None = None, limit: int = 20) -> ExplainPage:
    """The units that a picture excites most unusually, by exact percentile over the corpus.

    Raw activations of different units cannot be compared, so units are ranked by the share of images whose peak
    is at most the picture's; equal shares by standard deviations above the unit's mean. Dead units and
    non-finite activations are left out.
    """
    names = [atlas.layer(layer).spec.name] if layer else list(cells)
    candidates = [row for name in names for row in _bounded(atlas, name, cells[name])]
    enough = heapq.nlargest(limit, (row.at_least for row in candidates))
    near = [row for row in candidates if enough and row.at_most >= enough[-1]]
    percentiles: dict[tuple[str, int], float] = {}
    for name in names:
        own = [row for row in near if row.layer == name]
        above = atlas.counts_above(name, [row.channel for row in own], [row.activation for row in own]) if own else {}
        percentiles |= {(name, row.channel): 1 - above[row.channel] / row.image_count for row in own}
    order = {name: position for position, name in enumerate(names)}
    near.sort(key=lambda row: (-percentiles[row.layer, row.channel], -row.deviation, order[row.layer], row.channel))
    return ExplainPage(
        rows=[
            _explain_row(atlas, placement, row, cells[row.layer], percentiles[row.layer, row.channel])
            for row in near[:limit]
        ]
    )


def _bounded(atlas: Atlas, layer: str, cells: pa.Table) -> list[Candidate]:
    """The units of a layer that a picture excites, with bounds of their percentiles from the stored knots."""
    shares, known = np.array(tables.KNOT_SHARES), atlas.statistics(layer)
    activation = cells["activation"].to_numpy().astype(np.float64)
    channels = np.flatnonzero(known.ranked & np.isfinite(activation))
    activation, count = activation[channels], known.count[channels]
    passed = (known.knots[channels] <= activation[:, None]).sum(axis=1)
    at_least = np.where(passed == 0, 0.0, np.minimum(1, (np.floor(shares[passed - 1] * count) + 1) / count))
    at_most = np.where(passed == len(shares), 1.0, np.floor(np.append(shares, 1)[passed] * count) / count)
    deviation = (activation - known.mean[channels]) / known.std[channels]
    columns = (channels, activation, count, at_least, at_most, deviation)
    return [Candidate(layer, *row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _explain_row(atlas: Atlas, placement: Placement, row: Candidate, cells: pa.Table, percentile: float) -> ExplainRow:
    location = Location(cells["row"][row.channel].as_py(), cells["col"][row.channel].as_py())
    return ExplainRow(
        layer=row.layer,
        channel=row.channel,
        activation=row.activation,
        percentile=percentile,
        row=location.row,
        col=location.col,
        box=placement.to_image(atlas.layer(row.layer).spec.receptive_field.box_at(location)),
    )
