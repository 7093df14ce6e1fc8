"""Explaining an image: the units that it excites most unusually, by percentile."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.answers.patches import ExplainPage, ExplainRow
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location, Placement
from unitscope_schemas.questions import ExplainQuestion
from unitscope_schemas.ranks import percentile
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.atlas.image_filter import EVERY_IMAGE, ImageFilter
from unitscope_services.atlas.ranks.ranked_unit import Array
from unitscope_services.atlas.rows import ImageEntry, rows_of
from unitscope_services.encoding.cells import Activations, Cells


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
        """Return the units whose percentile may be at least `enough`."""
        near = np.flatnonzero(self.at_most >= enough)
        columns = {name: getattr(self, name)[near].tolist() for name in Candidate._fields if name != "layer"}
        return rows_of(Candidate, {"layer": repeat(self.layer), **columns})


class PicturePeaks(Protocol):
    """The peaks of every unit on one picture."""

    def activations(self, layer: str) -> Activations:
        """Return the activations of a layer's units at their peaks, in order of channels."""

    def locations(self, layer: str, channels: list[int]) -> list[Location]:
        """Return the locations of these channels' peaks on the layer's grid."""


@dataclass(frozen=True)
class StoredPeaks:
    """The stored peaks of an image of the corpus; locations are read only for the channels that need them."""

    atlas: Atlas
    image: ImageEntry

    def activations(self, layer: str) -> Activations:
        """Return the activations of a layer's units at their peaks, in order of channels."""
        return self.atlas.activations(layer, self.image)

    def locations(self, layer: str, channels: list[int]) -> list[Location]:
        """Return the locations of these channels' peaks on the layer's grid."""
        locations = self.atlas.locations(layer, channels, self.image)
        return [locations[channel] for channel in channels]


@dataclass(frozen=True)
class ComputedPeaks:
    """The peaks that the model has computed on a picture from outside."""

    cells: Cells

    def activations(self, layer: str) -> Activations:
        """Return the activations of a layer's units at their peaks, in order of channels."""
        values: Activations = self.cells[layer]["activation"].to_numpy()
        return values

    def locations(self, layer: str, channels: list[int]) -> list[Location]:
        """Return the locations of these channels' peaks on the layer's grid."""
        peaks = self.cells[layer].take(channels)
        return list(map(Location, peaks["row"].to_pylist(), peaks["col"].to_pylist()))


class Among:
    """The images that pass a filter, among which percentiles are counted.

    Percentiles are exact, from the peaks that scans wrote. This costs a read of the chosen units' peaks in every shard
    that holds one of the images, and of all units of a layer where few images pass, as no bound then tells units apart.
    """

    def __init__(self, atlas: Atlas, passing: ImageFilter) -> None:
        self._atlas = atlas
        chosen = atlas.catalogue.chosen(passing)
        assert chosen is not None, "a filter that names nothing lets all images pass"
        self.count, self.total = int(chosen.sum()), len(chosen)
        self._shards = atlas.catalogue.shards(chosen)

    def bounds(self, above: Array, ranked: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the least and greatest percentile of units of which `above`[0] to `above`[1] of `ranked` images peak
        higher.

        Images whose peak is not finite are ranked nowhere, so of those that pass fewer may count.
        """
        least = np.maximum(self.count - (self.total - ranked), 0)
        most = np.minimum(self.count, ranked)
        surely_above = np.maximum(above[0] - (ranked - least), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            at_least = np.where(least > 0, np.maximum((least - above[1]) / least, 0.0), 0.0)
            at_most = np.where(most > 0, np.maximum((most - surely_above) / most, 0.0), 0.0)
        return at_least, at_most

    def percentiles(self, layer: str, channels: Sequence[int], activations: Sequence[float]) -> list[float | None]:
        """Return for each unit the share of the images whose peak is at most the activation; None where none has a
        peak."""
        above, finite = np.zeros(len(channels), np.int64), np.zeros(len(channels), np.int64)
        limits = np.array(activations, np.float32)[:, None]
        for shard, rows in self._shards.items():
            check_time()
            peaks = self._atlas.scanned_activations(layer, channels, shard)[:, rows]
            known = np.isfinite(peaks)
            above += (known & (peaks > limits)).sum(1)
            finite += known.sum(1)
        return [
            percentile(high, count) if count else None
            for high, count in zip(above.tolist(), finite.tolist(), strict=True)
        ]


def explain(
    atlas: Atlas,
    peaks: PicturePeaks,
    placement: Placement,
    question: ExplainQuestion,
) -> ExplainPage:
    """Return the units that a picture excites most unusually, by exact percentile over the images that pass.

    Raw activations of different units cannot be compared, so units are ranked by the share of images whose peak is at
    most the picture's; equal shares by standard deviations above the unit's mean. Dead units and non-finite activations
    are left out.
    """
    layer, passing = question.layer, ImageFilter(question.label, question.where)
    names = [entry.spec.name for entry in ([atlas.layer(layer)] if layer else atlas.manifest.layers)]
    if passing != EVERY_IMAGE and atlas.manifest.keep is not None:
        raise UsageError("percentiles among some images take every peak, of which this atlas keeps the first alone")
    among = None if passing == EVERY_IMAGE else Among(atlas, passing)
    bounds = [_bounds(atlas, name, peaks.activations(name), among) for name in names]
    enough = np.sort(np.concatenate([layer_bounds.at_least for layer_bounds in bounds]))[-question.k :].min(initial=1)
    near = [candidate for layer_bounds in bounds for candidate in layer_bounds.candidates(enough)]
    percentiles = _percentiles(atlas, near, among)
    near = [row for row in near if row in percentiles]
    order = {name: position for position, name in enumerate(names)}
    near.sort(key=lambda row: (-percentiles[row], -row.deviation, order[row.layer], row.channel))
    shown = near[: question.k]
    locations: dict[tuple[str, int], Location] = {}
    for name in {row.layer for row in shown}:
        channels = [row.channel for row in shown if row.layer == name]
        peak_locations = peaks.locations(name, channels)
        locations |= {(name, channel): location for channel, location in zip(channels, peak_locations, strict=True)}
    return ExplainPage(
        stale_images=0 if among else atlas.manifest.stale_count,
        kept=atlas.manifest.kept,
        among=among.count if among else None,
        rows=[
            _explain_row(atlas, placement, row, locations[row.layer, row.channel], percentiles[row]) for row in shown
        ],
    )


def _bounds(atlas: Atlas, layer: str, peaks: Activations, among: Among | None) -> Bounds:
    """Return the units of a layer that a picture excites, with bounds of their percentiles from the stored knots."""
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
    """Return the candidates' percentiles; units that none of the images has a peak of are left out."""
    if among is None:
        return {row: _percentile(atlas, row) for row in rows}
    percentiles: dict[Candidate, float] = {}
    for layer, group in groupby(rows, lambda row: row.layer):
        layer_rows = list(group)
        shares = among.percentiles(layer, [row.channel for row in layer_rows], [row.activation for row in layer_rows])
        percentiles |= {row: share for row, share in zip(layer_rows, shares, strict=True) if share is not None}
    return percentiles


def _percentile(atlas: Atlas, row: Candidate) -> float:
    above = atlas.ranked(UnitId(row.layer, row.channel)).above(np.array([row.activation], np.float32))
    return percentile(int(above[0]), row.image_count)


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
