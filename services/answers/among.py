"""How unusual a picture's peaks are among some of the images: percentiles over those that pass a filter."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.opened.atlas import Atlas
from services.opened.filters import Filter
from services.opened.ranks import Array


class Among:
    """The images that pass a filter.

    Exact, from the peaks that scans wrote: costs a read of the asked units' peaks in every shard that holds one of the
    images, and of all units of a layer where few images pass, as no bound then tells units apart.
    """

    def __init__(self, atlas: Atlas, passing: Filter) -> None:
        self._atlas = atlas
        chosen = atlas.catalogue.chosen(passing)
        assert chosen is not None, "a filter that names nothing lets all images pass"
        self.count, self.total = int(chosen.sum()), len(chosen)
        self._shards = atlas.catalogue.shards(chosen)

    def bounds(self, above: Array, ranked: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and greatest percentile of units of which `above`[0] to `above`[1] of `ranked` images peak higher.

        Images whose peak is not finite are ranked nowhere, so of those that pass fewer may count.
        """
        least = np.maximum(self.count - (self.total - ranked), 0)
        most = np.minimum(self.count, ranked)
        surely_above = np.maximum(above[0] - (ranked - least), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            at_least = np.where(least > 0, np.maximum(1 - above[1] / least, 0.0), 0.0)
            at_most = np.where(most > 0, np.maximum(1 - surely_above / most, 0.0), 0.0)
        return at_least, at_most

    def percentiles(self, layer: str, channels: Sequence[int], activations: Sequence[float]) -> list[float | None]:
        """For each unit the share of the images whose peak is at most the activation; None where none has a peak."""
        above, finite = np.zeros(len(channels), np.int64), np.zeros(len(channels), np.int64)
        limits = np.array(activations, np.float32)[:, None]
        for shard, rows in self._shards.items():
            peaks = self._atlas.scanned_activations(layer, channels, shard)[:, rows]
            known = np.isfinite(peaks)
            above += (known & (peaks > limits)).sum(1)
            finite += known.sum(1)
        return [
            1 - high / count if count else None for high, count in zip(above.tolist(), finite.tolist(), strict=True)
        ]
