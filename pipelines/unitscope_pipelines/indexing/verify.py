"""Check an atlas: every part against its digest, and a random sample of rows against a new forward."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitscope_pipelines.derived.visuals import faulty_visuals
from unitscope_pipelines.indexing.scan import Scanner, ScanPlan
from unitscope_pipelines.indexing.versions import present_version
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Root, store_of
from unitscope_pipelines.storage.tombstones import present_images
from unitscope_pipelines.vision.images.preprocessing import prepare
from unitscope_pipelines.vision.recording.peaks import Peaks
from unitscope_schemas.errors import CorpusError, ModelError, PictureError
from unitscope_schemas.geometry import Location
from unitscope_schemas.manifest import LayerEntry, Manifest, Part

TOLERANCE = 1e-4
"""Drift that other hardware may cause, relative to an activation or the layer's mean on the image."""

_DIGESTED_AT_ONCE = 8
"""Parts, each of which takes some hundredths of a second to be asked for in an object store."""


@dataclass(frozen=True)
class Fault:
    """One thing that is not as the manifest says."""

    kind: str
    where: str
    what: str


@dataclass(frozen=True)
class Verdict:
    """What was checked and what was found."""

    part_count: int
    image_count: int
    cell_count: int
    largest_drift: float
    faults: list[Fault]


def verify(atlas: Root, sample: int, seed: int, corpus: str | Path | None = None, trust_code: bool = False) -> Verdict:
    """Digest every part and stored picture of a unit, re-run `sample` random images and compare all of their peaks.

    Faults: a missing or changed part, a missing or edited picture, weights of another model, an activation
    that drifted, a peak at another location although no other value comes near it.
    """
    manifest = present_version(atlas)
    parts = list(manifest.parts())
    with ThreadPoolExecutor(_DIGESTED_AT_ONCE, thread_name_prefix="digest") as threads:
        faults = [fault for fault in threads.map(partial(_part_fault, atlas), parts) if fault is not None]
    faults += [Fault("picture of a unit", path, what) for path, what in faulty_visuals(atlas).items()]
    if faults:
        return Verdict(len(parts), 0, 0, 0.0, faults)
    root = manifest.corpus.root if corpus is None else str(corpus)
    try:
        scanner = Scanner(scan_plan(manifest, atlas, root, trust_code))
    except ModelError as error:
        return Verdict(len(parts), 0, 0, 0.0, [Fault("model", manifest.model.spec, str(error))])
    images = present_images(manifest, atlas)
    chosen = sorted(random.Random(seed).sample(range(images.num_rows), min(sample, images.num_rows)))
    cell_count, largest_drift = 0, 0.0
    for number in chosen:
        row = images.slice(number, 1).to_pylist()[0]
        try:
            data = scanner.originals.read(row["address"])
            if hashlib.sha256(data).hexdigest() != row["image_id"]:
                faults.append(Fault("picture", row["path"], "edited since it was indexed"))
                continue
            found = scanner.forward([prepare(data, manifest.preprocessing).pixels]).peaks
        except OSError as error:
            faults.append(Fault("picture", row["path"], f"cannot be read: {error.strerror or error}"))
            continue
        except (PictureError, CorpusError) as error:
            faults.append(Fault("picture", row["path"], str(error)))
            continue
        for entry in manifest.layers:
            compare = _compare if manifest.keep is None else _compare_kept
            drift, layer_faults = compare(atlas, manifest, entry, row, found[entry.spec.name])
            largest_drift = max(largest_drift, drift)
            cell_count += entry.spec.units
            faults += layer_faults
    return Verdict(len(parts), len(chosen), cell_count, largest_drift, faults)


def _part_fault(atlas: Root, part: Part) -> Fault | None:
    try:
        digest = store_of(atlas).digest(part.path)
    except OSError as error:
        return Fault("part", part.path, f"cannot be read: {error.strerror}")
    return None if digest == part.sha256 else Fault("part", part.path, "its bytes are not those that were sealed")


def scan_plan(manifest: Manifest, atlas: Root, corpus: str, trust_code: bool = False) -> ScanPlan:
    """How the images of a sealed atlas were scanned."""
    return ScanPlan(
        corpus=corpus,
        atlas=atlas,
        atlas_key=manifest.atlas_key,
        model=manifest.model,
        preprocessing=manifest.preprocessing,
        layers=tuple(entry.spec for entry in manifest.layers),
        embed_layer=manifest.patches.layer,
        batch_size=manifest.batch_size,
        precision=manifest.precision,
        device="auto",
        most_pixels=2**62,
        known_ids=frozenset(),
        trust_code=trust_code,
    )


def _compare(
    atlas: Root, manifest: Manifest, entry: LayerEntry, image: dict[str, object], found: Peaks
) -> tuple[float, list[Fault]]:
    """Largest relative drift of a layer's stored peaks on one image, and the faults among them."""
    receipt = next(receipt for receipt in manifest.shards if receipt.shard == image["shard"])
    with store_of(atlas).hold(receipt.peaks[entry.spec.name]) as path:
        stored = pq.read_table(path, filters=pc.field("image") == image["shard_row"], partitioning=None)
    return _drift(entry, image, stored, found)


def _compare_kept(
    atlas: Root, manifest: Manifest, entry: LayerEntry, image: dict[str, object], found: Peaks
) -> tuple[float, list[Fault]]:
    """The same for the ranks that a bounded atlas keeps; and no unit may peak above those without being among them."""
    columns = ["unit", "image", "activation", "row", "col"]
    kept = pa.concat_tables(read_part(atlas, part, columns) for part in entry.ranked)
    stored = kept.filter(pc.field("image") == image["image"])
    drift, faults = _drift(entry, image, stored, found)
    last = np.full(entry.spec.units, np.inf)
    np.minimum.at(last, kept["unit"].to_numpy(), kept["activation"].to_numpy())
    whole = read_part(atlas, entry.units, ["image_count"])["image_count"].to_numpy() <= (manifest.keep or 0)
    now = found.activation[0].numpy().astype(np.float64)
    slack = TOLERANCE * np.maximum(np.abs(last), np.abs(now[np.isfinite(now)]).mean())
    above = np.isfinite(now) & (now > last + slack) & ~whole
    above[stored["unit"].to_numpy()] = False
    faults += [
        Fault(
            "activation", f"{entry.spec.name}:{unit} on {image['path']}", f"is {now[unit]:.6g}, but not among the kept"
        )
        for unit in np.flatnonzero(above)
    ]
    return drift, faults


def _drift(entry: LayerEntry, image: dict[str, object], stored: pa.Table, found: Peaks) -> tuple[float, list[Fault]]:
    """Largest relative drift of the stored peaks of some units on one image, and the faults among them."""
    units = stored["unit"].to_numpy()
    was = stored["activation"].to_numpy().astype(np.float64)
    now = found.activation[0].numpy().astype(np.float64)[units]
    finite = np.isfinite(was) & np.isfinite(now)
    scale = np.maximum(np.abs(was), np.abs(was[np.isfinite(was)]).mean() if np.isfinite(was).any() else 1.0)
    drift = np.where(finite, np.abs(np.where(finite, now - was, 0)) / scale, 0)
    drift[np.isfinite(was) != np.isfinite(now)] = np.inf
    faults = [
        Fault(
            "activation", f"{entry.spec.name}:{units[row]} on {image['path']}", f"was {was[row]:.6g}, is {now[row]:.6g}"
        )
        for row in np.flatnonzero(drift > TOLERANCE)
    ]
    exact = (drift == 0) & finite
    for row in np.flatnonzero(exact).tolist():
        place = Location(stored["row"][row].as_py(), stored["col"][row].as_py())
        moved = entry.spec.location(int(found.location[0, units[row]]))
        if place != moved:
            where = f"{entry.spec.name}:{units[row]} on {image['path']}"
            faults.append(Fault("location", where, f"was {place}, is {moved}"))
    return float(drift.max(initial=0)), faults
