"""Images whose forward is run again, and their peaks compared with those that are stored."""

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitscope_pipelines.indexing.known_ids import KnownIds
from unitscope_pipelines.indexing.scan import Scanner, ScanPlan
from unitscope_pipelines.indexing.verification.fault import Fault
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.vision.images.preprocessing import prepare
from unitscope_pipelines.vision.recording.device import device_of_kind
from unitscope_pipelines.vision.recording.peaks import Peaks
from unitscope_schemas.entries.model import TOLERANCES
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import CorpusError, PictureError
from unitscope_schemas.geometry import Location
from unitscope_schemas.manifest import LayerEntry, Manifest


class SampledImage(NamedTuple):
    """An image that is recorded again: columns of the images table."""

    image: int
    image_id: str
    path: str
    address: str
    shard: str
    shard_row: int


class RunAgain:
    """Images whose forward is run again, and what of them is not as it was recorded."""

    def __init__(self, store: Store, manifest: Manifest, broken: Collection[str]) -> None:
        self.store, self.manifest, self.broken = store, manifest, broken
        self.image_count = self.cell_count = 0
        self.largest_drift = 0.0
        self.faults: list[Fault] = []
        self.left_out: set[str] = set()
        """Layers of which not all peaks could be compared."""

    def compare(self, scanner: Scanner, images: Sequence[SampledImage]) -> None:
        """Record images again and compare the peaks of every layer whose tables are whole."""
        compare = _compare_all if self.manifest.keep is None else _compare_first
        for image in images:
            peaks = _recorded_again(scanner, image)
            if isinstance(peaks, Fault):
                self.faults.append(peaks)
                continue
            self.image_count += 1
            for entry in self.manifest.layers:
                if any(part.path in self.broken for part in self._tables(entry, image)):
                    self.left_out.add(entry.spec.name)
                    continue
                drift, faults = compare(self.store, self.manifest, entry, image, peaks[entry.spec.name])
                self.largest_drift = max(self.largest_drift, drift)
                self.cell_count += entry.spec.units
                self.faults += faults

    def _tables(self, entry: LayerEntry, image: SampledImage) -> list[Part]:
        """Return the parts that hold what was recorded of a layer on an image."""
        if self.manifest.keep is not None:
            ranked = (one.layers[entry.spec.name].ranked for one in self.manifest.segments)
            return [entry.units, *chain.from_iterable(ranked)]
        return [receipt.peaks[entry.spec.name] for receipt in self.manifest.shards if receipt.shard == image.shard]


def scan_plan(manifest: Manifest, store: Store, corpus: str, trust_code: bool = False) -> ScanPlan:
    """Return the plan by which the images of a sealed atlas were scanned."""
    return ScanPlan(
        corpus=corpus,
        store=store,
        atlas_key=manifest.atlas_key,
        model=manifest.model,
        preprocessing=manifest.preprocessing,
        layers=tuple(entry.spec for entry in manifest.layers),
        embed_layer=manifest.embedding.layer,
        batch_size=manifest.batch_size,
        precision=manifest.precision,
        device=device_of_kind(manifest.device).type,
        most_pixels=2**62,
        known_ids=KnownIds(),
        trust_code=trust_code,
    )


def sampled(images: pa.Table, sample: int, seed: int) -> list[SampledImage]:
    """Return random rows of the images table, in its order."""
    numbers = sorted(random.Random(seed).sample(range(images.num_rows), min(sample, images.num_rows)))
    rows = images.select(list(SampledImage._fields)).take(pa.array(numbers, pa.int64()))
    return [SampledImage(**row) for row in rows.to_pylist()]


def _recorded_again(scanner: Scanner, image: SampledImage) -> Mapping[str, Peaks] | Fault:
    """Return the peaks of every layer on an image, or what is wrong with its picture."""
    try:
        data = scanner.originals.read(image.address)
        if hashlib.sha256(data).hexdigest() != image.image_id:
            return Fault("picture", image.path, "edited since it was indexed")
        return scanner.forward([prepare(data, scanner.plan.preprocessing).pixels]).peaks
    except OSError as error:
        return Fault("picture", image.path, f"cannot be read: {error.strerror or error}")
    except (PictureError, CorpusError) as error:
        return Fault("picture", image.path, str(error))


def _compare_all(
    store: Store, manifest: Manifest, entry: LayerEntry, image: SampledImage, peaks: Peaks
) -> tuple[float, list[Fault]]:
    """Return the largest relative drift of a layer's stored peaks on one image, and the faults among them."""
    receipt = next(receipt for receipt in manifest.shards if receipt.shard == image.shard)
    with store.hold(receipt.peaks[entry.spec.name]) as path:
        stored = pq.read_table(path, filters=pc.field("image") == image.shard_row, partitioning=None)
    return _drift(entry, image, stored, peaks, TOLERANCES[manifest.precision])


def _compare_first(
    store: Store, manifest: Manifest, entry: LayerEntry, image: SampledImage, peaks: Peaks
) -> tuple[float, list[Fault]]:
    """Compare an image with the first ranks of a bounded atlas, as `_compare_all` does with all peaks.

    No unit may peak above its last stored rank without the image being among them.
    """
    columns = ["unit", "image", "activation", "row", "col"]
    own = manifest.segments[0].layers[entry.spec.name]  # a bounded version has one segment
    ranked = pa.concat_tables(read_part(store, part, columns) for part in own.ranked)
    stored = ranked.filter(pc.field("image") == image.image)
    drift, faults = _drift(entry, image, stored, peaks, TOLERANCES[manifest.precision])
    last = np.full(entry.spec.units, np.inf)
    np.minimum.at(last, ranked["unit"].to_numpy(), ranked["activation"].to_numpy())
    whole = read_part(store, entry.units, ["image_count"])["image_count"].to_numpy() <= (manifest.keep or 0)
    now = peaks.activation[0].numpy().astype(np.float64)
    slack = TOLERANCES[manifest.precision] * np.maximum(np.abs(last), np.abs(now[np.isfinite(now)]).mean())
    above = np.isfinite(now) & (now > last + slack) & ~whole
    above[stored["unit"].to_numpy()] = False
    faults += [
        Fault("activation", _cell(entry, unit, image), f"is {now[unit]:.6g}, but not among the kept")
        for unit in np.flatnonzero(above).tolist()
    ]
    return drift, faults


def _drift(
    entry: LayerEntry, image: SampledImage, stored: pa.Table, peaks: Peaks, tolerance: float
) -> tuple[float, list[Fault]]:
    """Return the largest relative drift of the stored peaks of some units on one image, and the faults among them."""
    units = stored["unit"].to_numpy()
    before = stored["activation"].to_numpy().astype(np.float64)
    now = peaks.activation[0].numpy().astype(np.float64)[units]
    finite = np.isfinite(before) & np.isfinite(now)
    scale = np.maximum(np.abs(before), np.abs(before[np.isfinite(before)]).mean() if np.isfinite(before).any() else 1.0)
    drift = np.where(finite, np.abs(np.where(finite, now - before, 0)) / scale, 0)
    drift[np.isfinite(before) != np.isfinite(now)] = np.inf
    faults = [
        Fault("activation", _cell(entry, units[row], image), f"was {before[row]:.6g}, is {now[row]:.6g}")
        for row in np.flatnonzero(drift > tolerance)
    ]
    exact = (drift == 0) & finite
    for row in np.flatnonzero(exact).tolist():
        recorded = Location(stored["row"][row].as_py(), stored["col"][row].as_py())
        location = entry.spec.location(int(peaks.location[0, units[row]]))
        if recorded != location:
            faults.append(Fault("location", _cell(entry, units[row], image), f"was {recorded}, is {location}"))
    return float(drift.max(initial=0)), faults


def _cell(entry: LayerEntry, unit: int, image: SampledImage) -> str:
    """Name the peak of a unit on an image."""
    return f"{entry.spec.name}:{unit} on {image.path}"
