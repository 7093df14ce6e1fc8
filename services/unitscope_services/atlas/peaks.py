"""What a scan wrote about single images: the peak of every unit, shard by shard."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.geometry import Location
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry, Manifest
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.atlas.parts import Parts
from unitscope_services.atlas.rows import ImageEntry

_PEAK = ["activation", "row", "col"]


class ScannedPeaks:
    """The peaks parts of an atlas: units × images of a shard, sorted by unit, so that a cell's position is known."""

    def __init__(self, parts: Parts, manifest: Manifest) -> None:
        self._parts = parts
        self._receipts = {receipt.shard: receipt for receipt in manifest.shards}

    def activations(self, entry: LayerEntry, image: ImageEntry) -> NDArray[np.float32]:
        """Return the peak of every unit of a layer on one image, in order of channels."""
        count, row = self._receipts[image.shard].forward_count, image.shard_row
        with self._open(entry, image) as file:
            column = file.read(columns=["activation"], use_threads=False)["activation"]
        cells: NDArray[np.float32] = column.to_numpy()[row::count]
        return cells

    def of_unit(
        self, entry: LayerEntry, channel: int, shards: Sequence[str], rows: Sequence[int]
    ) -> dict[str, NDArray[Any]]:
        """Return activation, row and col of a unit's peak on some images, each at its row of its shard."""
        block, offset = divmod(channel, BLOCK_UNITS)

        def cell(shard: str, row: int) -> pa.Table:
            receipt = self._receipts[shard]
            with self._parts.open(receipt.peaks[entry.spec.name]) as file:
                table = file.read_row_group(block, columns=_PEAK, use_threads=False)
            return table.slice(offset * receipt.forward_count + row, 1)

        none = tables.PEAKS.empty_table().select(_PEAK)
        peaks = pa.concat_tables([none, *map(cell, shards, rows)])
        columns = {name: peaks[name].to_numpy() for name in _PEAK}
        return {**columns, "activation": columns["activation"] + np.float32(0)}  # as it is ranked: −0 is 0

    def of_units(self, entry: LayerEntry, channels: Sequence[int], shard: str) -> NDArray[np.float32]:
        """Return the peaks of some units of a layer on every image of a shard, unit × row of the shard."""
        count = self._receipts[shard].forward_count
        peaks = np.empty((len(channels), count), np.float32)
        order = sorted(range(len(channels)), key=channels.__getitem__)
        with self._parts.open(self._receipts[shard].peaks[entry.spec.name]) as file:
            for block, indices in groupby(order, lambda index: channels[index] // BLOCK_UNITS):
                check_time()
                column = file.read_row_group(block, columns=["activation"], use_threads=False)["activation"]
                cells = column.to_numpy().reshape(-1, count)
                for index in indices:
                    peaks[index] = cells[channels[index] % BLOCK_UNITS]
        return peaks

    def locations(self, entry: LayerEntry, channels: Sequence[int], image: ImageEntry) -> dict[int, Location]:
        """Return where some units of a layer peak on one image."""
        count = self._receipts[image.shard].forward_count
        locations = {}
        with self._open(entry, image) as file:
            for block, block_channels in groupby(sorted(channels), lambda channel: channel // BLOCK_UNITS):
                table = file.read_row_group(block, columns=["row", "col"], use_threads=False)
                for channel in block_channels:
                    position = channel % BLOCK_UNITS * count + image.shard_row
                    locations[channel] = Location(table["row"][position].as_py(), table["col"][position].as_py())
        return locations

    def _open(self, entry: LayerEntry, image: ImageEntry) -> AbstractContextManager[pq.ParquetFile]:
        """Open the peaks of a layer on the shard that scanned an image."""
        return self._parts.open(self._receipts[image.shard].peaks[entry.spec.name])
