"""What an image excites: its units by percentile."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas import tables
from schemas.answers import ExplainPage, ExplainRow
from schemas.errors import UsageError
from schemas.geometry import Location, Placement
from schemas.units import UnitId
from services.answers.among import Among
from services.opened.atlas import Atlas
from services.opened.database import Row
from services.opened.filters import EVERY_IMAGE, Filter

Activations = NDArray[np.float32]


class Candidate(NamedTuple):
    """A unit that a picture may excite most: its peak, images ranked, standard deviations above its mean."""

    layer: str
    channel: int
    activation: float
    image_count: int
    deviation: float


class Bounds(NamedTuple):
    """The units of a layer that are ranked and finite on a picture, as arrays, with bounds of their percentiles."""

    layer: str
    channel: NDArray[np.intp]
    activation: NDArray[np.float64]
    image_count: NDArray[np.int64]
    deviation: NDArray[np.float64]
    at_least: NDArray[np.float64]
    at_most: NDArray[np.float64]

    def candidates(self, enough: float) -> list[Candidate]:
        """Those whose percentile may be at least `enough`."""
        near = np.flatnonzero(self.at_most >= enough)
        return [
            Candidate(self.layer, *row) for row in zip(*(column[near].tolist() for column in self[1:5]), strict=True)
        ]


Cells = dict[str, pa.Table]
"""By layer, in order of channels: activation, row and col of every unit's peak on one picture."""


class PicturePeaks(Protocol):
    """The peaks of every unit on one picture."""

    def activations(self, layer: str) -> Activations: ...

    def locations(self, layer: str, channels: list[int]) -> list[Location]: ...


@dataclass(frozen=True)
class StoredPeaks:
    """Those of an image of the corpus; locations are read where they are asked for."""

    atlas: Atlas
    image: Row

    def activations(self, layer: str) -> Activations:
        return self.atlas.activations(layer, self.image)

    def locations(self, layer: str, channels: list[int]) -> list[Location]:
        found = self.atlas.locations(layer, channels, self.image)
        return [found[channel] for channel in channels]


@dataclass(frozen=True)
class ComputedPeaks:
    """Those of a picture from outside."""

    cells: Cells

    def activations(self, layer: str) -> Activations:
        values: Activations = self.cells[layer]["activation"].to_numpy()
        return values

    def locations(self, layer: str, channels: list[int]) -> list[Location]:
        return [Location(row["row"], row["col"]) for row in self.cells[layer].take(channels).to_pylist()]


def explain(
    atlas: Atlas,
    peaks: PicturePeaks,
    placement: Placement,
    layer: str | None = None,
    limit: int = 20,
    passing: Filter = EVERY_IMAGE,
) -> ExplainPage:
    """The units that a picture excites most unusually, by exact percentile over the corpus, or what passes of it.

    Raw activations of different units cannot be compared, so units are ranked by the share of images whose peak
    is at most the picture's; equal shares by standard deviations above the unit's mean. Dead units and
    non-finite activations are left out.
    """
    names = [entry.spec.name for entry in ([atlas.layer(layer)] if layer else atlas.manifest.layers)]
    if passing != EVERY_IMAGE and atlas.manifest.keep is not None:
        raise UsageError("percentiles among some images take every peak, of which this atlas keeps the first alone")
    among = None if passing == EVERY_IMAGE else Among(atlas, passing)
    bounds = [_bounds(atlas, name, peaks.activations(name), among) for name in names]
    enough = np.sort(np.concatenate([one.at_least for one in bounds]))[-limit:].min(initial=1)
    near = [candidate for one in bounds for candidate in one.candidates(enough)]
    percentiles = _percentiles(atlas, near, among)
    near = [row for row in near if row in percentiles]
    order = {name: position for position, name in enumerate(names)}
    near.sort(key=lambda row: (-percentiles[row], -row.deviation, order[row.layer], row.channel))
    shown = near[:limit]
    locations: dict[tuple[str, int], Location] = {}
    for name in {row.layer for row in shown}:
        channels = [row.channel for row in shown if row.layer == name]
        found = peaks.locations(name, channels)
        locations |= {(name, channel): location for channel, location in zip(channels, found, strict=True)}
    return ExplainPage(
        stale_images=0 if among else atlas.manifest.stale_count,
        kept=atlas.manifest.kept,
        among=among.count if among else None,
        rows=[
            _explain_row(atlas, placement, row, locations[row.layer, row.channel], percentiles[row]) for row in shown
        ],
    )


def _bounds(atlas: Atlas, layer: str, peaks: Activations, among: Among | None) -> Bounds:
    """The units of a layer that a picture excites, with bounds of their percentiles from the stored knots."""
    shares, known = np.array(tables.KNOT_SHARES), atlas.statistics(layer)
    channels = np.flatnonzero(known.ranked & np.isfinite(peaks))
    activation, count = peaks[channels].astype(np.float64), known.count[channels]
    passed = (known.knots[channels] <= activation[:, None]).sum(axis=1)
    at_least = np.where(passed == 0, 0.0, np.minimum(1, (np.floor(shares[passed - 1] * count) + 1) / count))
    at_most = np.where(passed == len(shares), 1.0, np.floor(np.append(shares, 1)[passed] * count) / count)
    if among:
        above = np.rint((1 - np.array([at_most, at_least])) * count)
        at_least, at_most = among.bounds(above, count)
    deviation = (activation - known.mean[channels]) / known.std[channels]
    return Bounds(layer, channels, activation, count, deviation, at_least, at_most)


def _percentiles(atlas: Atlas, rows: Sequence[Candidate], among: Among | None) -> dict[Candidate, float]:
    """Units that none of the images has a peak of are left out."""
    if among is None:
        return {row: _percentile(atlas, row) for row in rows}
    found: dict[Candidate, float] = {}
    for layer, group in groupby(rows, lambda row: row.layer):
        own = list(group)
        shares = among.percentiles(layer, [row.channel for row in own], [row.activation for row in own])
        found |= {row: share for row, share in zip(own, shares, strict=True) if share is not None}
    return found


def _percentile(atlas: Atlas, row: Candidate) -> float:
    above = atlas.ranked(UnitId(row.layer, row.channel)).above(np.array([row.activation], np.float32))
    return 1 - int(above[0]) / row.image_count


def _explain_row(
    atlas: Atlas, placement: Placement, row: Candidate, location: Location, percentile: float
) -> ExplainRow:
    return ExplainRow(
        layer=row.layer,
        channel=row.channel,
        activation=row.activation,
        percentile=percentile,
        row=location.row,
        col=location.col,
        box=placement.to_image(atlas.layer(row.layer).spec.receptive_field.box_at(location)),
    )
