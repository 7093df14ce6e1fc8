"""The images of a synthetic atlas of any size: ids like digests, labels of very different size, some nearly alike."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_pipelines.storage.long_tables.long_table import ROWS_AT_ONCE, LongTable
from unitscope_schemas import tables
from unitscope_schemas.geometry import Size

SHARD_IMAGES = 1_024
LABELS, RARE_LABEL, RARE_IMAGES = 1_000, "rare", 12
INPUT = Size(224, 224)
_HEIGHTS_PX = (333, 375, 400, 500)
_TWINS = 0.01
"""Share of the images that are nearly the one scanned before them."""
_ALONE = -1


def shard_name(number: int) -> str:
    """Return the name of a shard."""
    return f"{number:016x}"


@dataclass(frozen=True)
class SyntheticImages:
    """What is drawn of each image, in order of ids: some 60 bytes."""

    digests: NDArray[np.bytes_]
    scanned: NDArray[np.int32]
    """Place of the image in the order of the scan."""
    labels: NDArray[np.int16]
    groups: NDArray[np.int32]
    """Place of one of a group of near duplicates by which all know each other, −1 for an image without any."""
    heights: NDArray[np.int16]

    @classmethod
    def of(cls, count: int) -> "SyntheticImages":
        """Draw so many images."""
        chance = np.random.default_rng(0)
        digests = np.frombuffer(b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(count)), "S32")
        scanned = np.argsort(digests).astype(np.int32)
        place = np.empty(count, np.int32)
        place[scanned] = np.arange(count)
        labels = (LABELS * chance.random(count) ** 2).astype(np.int16)
        labels[:: max(1, count // RARE_IMAGES)][:RARE_IMAGES] = LABELS
        twins = np.flatnonzero(chance.random(count - 1) < _TWINS)
        groups = np.full(count, _ALONE, np.int32)
        groups[twins] = groups[twins + 1] = np.minimum(place[twins], place[twins + 1])
        heights = chance.choice(np.array(_HEIGHTS_PX, np.int16), count)
        return cls(digests[scanned], scanned, labels[scanned], groups[scanned], heights)

    def table(self, shard_count: int) -> LongTable:
        """Return the images of the first shards as a version of them alone has them."""
        own = np.flatnonzero(self.scanned < shard_count * SHARD_IMAGES)
        first = _first_of_groups(self.groups[own])
        places = np.where(first == _ALONE, _ALONE, own[first])
        batches = (
            self._rows(own[start : start + ROWS_AT_ONCE], start, places[start : start + ROWS_AT_ONCE])
            for start in range(0, len(own), ROWS_AT_ONCE)
        )
        return LongTable.written(batches, tables.IMAGES)

    def _rows(self, own: NDArray[np.intp], start: int, first: NDArray[np.intp]) -> pa.RecordBatch:
        """Return some images, numbered from `start`, each with the place of the first of its group, or −1."""
        count, scanned, heights = len(own), self.scanned[own], self.heights[own].astype(np.int64)
        names = [f"label{code:03d}" if code < LABELS else RARE_LABEL for code in self.labels[own].tolist()]
        paths = [f"{name}/{number:07d}.jpg" for name, number in zip(names, scanned.tolist(), strict=True)]
        resized, widths = 256 * heights // np.minimum(heights, 500), 256 * 500 // np.minimum(heights, 500)
        shards = [shard_name(number) for number in (scanned // SHARD_IMAGES).tolist()]
        columns = {
            "image": np.arange(start, start + count, dtype=np.int32),
            "image_id": _ids(self.digests[own]),
            "path": paths,
            "other_paths": [[]] * count,
            "address": [f"file:{path}" for path in paths],
            "other_addresses": [[]] * count,
            "label": names,
            "labels": [[name] for name in names],
            "size_bytes": 50_000 + scanned.astype(np.int64) % 100_000,
            "modified_ns": np.zeros(count, np.int64),
            "format": ["JPEG"] * count,
            "mode": ["RGB"] * count,
            "height_px": heights,
            "width_px": np.full(count, 500),
            "resized_height_px": resized,
            "resized_width_px": widths,
            "crop_row": (resized - INPUT.height) // 2,
            "crop_col": (widths - INPUT.width) // 2,
            "duplicate_group": pa.array(_ids(self.digests[first]), pa.string(), mask=first == _ALONE),
            "shard": shards,
            "shard_row": scanned % SHARD_IMAGES,
        }
        nothing = pa.nulls(count, pa.string())
        return pa.record_batch({name: pa.array(columns.get(name, nothing)) for name in tables.IMAGES.names})


def _first_of_groups(groups: NDArray[np.int32]) -> NDArray[np.intp]:
    """Return the first member's position for each member of a group of several, −1 for all others."""
    members = np.flatnonzero(groups != _ALONE)
    codes = np.unique(groups[members], return_inverse=True)[1]
    first = np.full(len(members), len(groups))
    np.minimum.at(first, codes, members)
    found = np.full(len(groups), _ALONE)
    found[members] = np.where(np.bincount(codes)[codes] > 1, first[codes], _ALONE) if len(members) else _ALONE
    return found


def _ids(digests: NDArray[np.bytes_]) -> list[str]:
    """Return digests as ids; numpy leaves out the zeros that a digest may end in."""
    return [digest.ljust(32, b"\0").hex() for digest in digests.tolist()]
