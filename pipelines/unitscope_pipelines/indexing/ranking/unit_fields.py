"""The effective boxes of units, each measured on the unit's own exemplars, on the workers of a cluster."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.cluster.resources import Resources
from unitscope_pipelines.cluster.workers import each
from unitscope_pipelines.indexing.known_ids import KnownIds
from unitscope_pipelines.indexing.scan import Scanner, ScanPlan
from unitscope_pipelines.storage.parts import read_part, write_table
from unitscope_pipelines.storage.segments.images import images_of_segments
from unitscope_pipelines.storage.segments.ranked_rows import RankedRows
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.vision.images.preprocessing import Pixels, normalise, prepare, stacked
from unitscope_pipelines.vision.receptive_fields.effective import (
    UnitSample,
    effective_heights,
    has_places,
    unit_height,
)
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import Segment
from unitscope_schemas.errors import CorpusError, PictureError
from unitscope_schemas.manifest import LayerEntry, Manifest
from unitscope_schemas.progress import Progress, Report
from unitscope_schemas.units import LayerSpec

MOST_EXEMPLARS = 4
"""Count of a unit's exemplars that are measured by default, where that is cheap."""
LEAST_SAMPLES = 4_096
"""Count of samples that are measured by default however small the corpus is."""
_FORWARDS_EACH = 2
"""Time that a sample takes at most, in forwards of a scan."""
_SAMPLES_IN_ITEM = 128
"""Count of samples that a worker measures at once: those of few pictures, so that each is decoded once."""
_PICTURES_ON_GPU = 32
"""Count of pictures in one forward on a GPU. A CPU takes one, whose forward serves all samples of the picture."""
_RANKS_READ = 4
"""Ranks that are read for each exemplar: near duplicates of exemplars are none."""


class FieldSample(NamedTuple):
    """A unit and one of its exemplars."""

    layer: str
    channel: int
    image_id: str
    address: str


class MeasuredSample(NamedTuple):
    """A unit, and the height that its effective box needs on one exemplar; None where it could not be measured."""

    layer: str
    channel: int
    height: int | None


@dataclass(frozen=True)
class RankedVersion:
    """A version whose units are ranked."""

    store: Store
    name: str
    layers: Sequence[LayerEntry]
    segments: Sequence[Segment]
    groups: Part | None

    @classmethod
    def of(cls, manifest: Manifest, store: Store) -> "RankedVersion":
        """Return a sealed version."""
        return cls(store, manifest.built, manifest.layers, manifest.segments, manifest.groups)

    @property
    def image_count(self) -> int:
        """The count of the version's images."""
        return sum(segment.image_count for segment in self.segments)

    @cached_property
    def shown(self) -> pa.Table:
        """Ids, addresses and groups of near duplicates of the images, by number; some 150 bytes for each."""
        return images_of_segments(self.store, self.segments, self.groups, ["image_id", "address", "duplicate_group"])


def exemplar_count(asked: int | None, layers: Sequence[LayerSpec], image_count: int) -> int:
    """Return how many exemplars of each unit to measure: as many as asked, else what takes no longer than a scan.

    By default it is at most MOST_EXEMPLARS, and of large networks over small corpora 0.
    """
    if asked is not None:
        return asked
    budget = max(LEAST_SAMPLES, image_count // _FORWARDS_EACH)
    return min(MOST_EXEMPLARS, budget // max(1, unit_count(layers)))


def is_over_budget(asked: int | None, layers: Sequence[LayerSpec], image_count: int) -> bool:
    """Tell whether units keep the boxes of their layers only because measuring them would take long."""
    return asked is None and MOST_EXEMPLARS > 0 and not exemplar_count(None, layers, image_count)


def unit_count(layers: Sequence[LayerSpec]) -> int:
    """Return how many units of some layers can have effective boxes of their own."""
    return sum(layer.units for layer in layers if has_fields(layer))


def with_unit_fields(
    version: RankedVersion,
    scan: ScanPlan,
    count: int,
    previous: Manifest | None,
    workers: Resources,
    report: Report,
    alone: bool = False,
) -> list[LayerEntry]:
    """Measure the effective boxes of a version's units on `count` exemplars each, and return its layers with them.

    A unit whose exemplars are those of the previous version keeps its box. Units that are dead, layers whose gradient
    something cuts, and what has no place keep the box of the layer, as all do with a count of 0. `alone`: values
    depend on a picture's batch, so that each has a forward of its own.
    """
    if not count:
        return [entry.model_copy(update={"fields": None, "field_exemplars": 0}) for entry in version.layers]
    layers = [entry for entry in version.layers if has_fields(entry.spec)]
    wanted = {entry.spec.name: exemplars(version, entry, count) for entry in layers}
    earlier = RankedVersion.of(previous, version.store) if previous else None
    heights = {entry.spec.name: _kept(earlier, entry, count, wanted[entry.spec.name]) for entry in layers}
    samples = [
        sample
        for name, units in wanted.items()
        for channel, own in units.items()
        if channel not in heights[name]
        for sample in own
    ]
    measured = _measured(scan, samples, workers, report, alone)
    for name, known in heights.items():
        known |= {channel: unit_height(found) for channel, found in measured[name].items()}
    return [_entry(version, entry, count, heights.get(entry.spec.name)) for entry in version.layers]


def with_fields_of(previous: Manifest | None, layers: Sequence[LayerEntry]) -> list[LayerEntry]:
    """Return layers with the effective boxes that their units have in the previous version."""
    before = {entry.spec.name: entry for entry in (previous.layers if previous else [])}
    fields = [before.get(entry.spec.name, entry) for entry in layers]
    return [
        entry.model_copy(update={"fields": own.fields, "field_exemplars": own.field_exemplars})
        for entry, own in zip(layers, fields, strict=True)
    ]


def exemplars(version: RankedVersion, entry: LayerEntry, count: int) -> dict[int, list[FieldSample]]:
    """Return the first exemplars of each unit of a layer whose ranks have an order, one of each group of duplicates."""
    units = read_part(version.store, entry.units, ["unit", "minimum", "maximum"])
    ordered = set(units.filter(pc.not_equal(units["minimum"], units["maximum"]))["unit"].to_pylist())
    found: dict[int, list[FieldSample]] = {}
    ranked = RankedRows.of(version.store, entry.spec.name, version.segments)
    for block in ranked.blocks:
        for channel, columns in ranked.units(block, ["image", "row"], _RANKS_READ * count):
            if channel in ordered:
                placed = columns["image"][columns["row"] != tables.TOKEN_ROW]
                shown = version.shown.take(pa.array(placed)).to_pylist()
                leads = {image["duplicate_group"] or image["image_id"]: image for image in reversed(shown)}
                chosen = list(reversed(leads.values()))[:count]
                found[channel] = [
                    FieldSample(entry.spec.name, channel, image["image_id"], image["address"]) for image in chosen
                ]
    return found


class FieldMeasurer:
    """A worker's task that measures the effective boxes of units on exemplars, with one loaded model."""

    def __init__(self, scan: ScanPlan, alone: bool) -> None:
        self.scanner = Scanner(scan)
        self.at_once = _PICTURES_ON_GPU if self.scanner.device.type == "cuda" and not alone else 1

    def __call__(self, samples: Sequence[FieldSample]) -> list[MeasuredSample]:
        """Return what each sample needs, None where its picture is not as it was, or gives no gradient."""
        addresses = {sample.image_id: sample.address for sample in samples}
        read = {image_id: self._read(image_id, address) for image_id, address in addresses.items()}
        pixels = {image_id: one for image_id, one in read.items() if one is not None}
        gone = [MeasuredSample(one.layer, one.channel, None) for one in samples if one.image_id not in pixels]
        left = [one for one in samples if one.image_id in pixels]
        measured: list[MeasuredSample] = []
        for own in self._groups(left):
            measured += self._heights(own, pixels)
        return gone + measured

    def _groups(self, samples: list[FieldSample]) -> Iterator[list[FieldSample]]:
        """Yield samples of up to so many pictures at once; where these are several, of one layer."""
        layers = groupby(sorted(samples), key=lambda one: one.layer if self.at_once > 1 else "")
        for _, of_layer in layers:
            own = sorted(of_layer, key=lambda one: one.image_id)
            pictures = [list(of_picture) for _, of_picture in groupby(own, key=lambda one: one.image_id)]
            for first in range(0, len(pictures), self.at_once):
                yield list(chain.from_iterable(pictures[first : first + self.at_once]))

    def _heights(self, samples: list[FieldSample], pixels: dict[str, Pixels]) -> Iterator[MeasuredSample]:
        scanner = self.scanner
        numbers = {image_id: number for number, image_id in enumerate(sorted({one.image_id for one in samples}))}
        batch = stacked([pixels[image_id] for image_id in numbers]).to(scanner.device)
        pictures = normalise(batch.float(), scanner.plan.preprocessing)
        wanted = [UnitSample(one.layer, one.channel, numbers[one.image_id]) for one in samples]
        found = effective_heights(
            scanner.model.module, scanner.plan.layers, pictures, wanted, scanner.fusions.running()
        )
        for sample, height in zip(samples, found, strict=True):
            yield MeasuredSample(sample.layer, sample.channel, height)

    def _read(self, image_id: str, address: str) -> Pixels | None:
        """Return a picture as it was indexed, None where it is gone or another."""
        with suppress(OSError, PictureError, CorpusError):
            data = self.scanner.originals.read(address)
            if hashlib.sha256(data).hexdigest() == image_id:
                return prepare(data, self.scanner.plan.preprocessing).pixels
        return None


def has_fields(layer: LayerSpec) -> bool:
    """Tell whether the effective boxes of a layer's units are shown, and can be measured."""
    field = layer.receptive_field
    return has_places(layer) and field.covers_input and field.unmeasured is None


def _measured(
    scan: ScanPlan, samples: list[FieldSample], workers: Resources, report: Report, alone: bool
) -> dict[str, dict[int, list[int]]]:
    """Return the heights that samples need, by layer and unit, those that cannot be measured left out."""
    found: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    if not samples:
        return found
    by_picture = sorted(samples, key=lambda sample: sample.image_id)
    items = [by_picture[first : first + _SAMPLES_IN_ITEM] for first in range(0, len(samples), _SAMPLES_IN_ITEM)]
    scan = replace(scan, known_ids=KnownIds())
    nodes, lost = Counter[str](), 0
    report(Progress("boxes", 0, len(samples), "gradients"))
    for done in each(partial(FieldMeasurer, scan, alone), items, workers):
        nodes[done.node] += len(done.result)
        for layer, channel, height in done.result:
            lost += height is None
            if height is not None:
                found[layer][channel].append(height)
        note = f"{lost} exemplars gave no gradient or could not be read again" if lost else ""
        ended = nodes.total() == len(samples)
        report(Progress("boxes", nodes.total(), len(samples), "gradients", dict(nodes), note=note if ended else ""))
    return found


def _kept(
    earlier: RankedVersion | None, entry: LayerEntry, count: int, wanted: dict[int, list[FieldSample]]
) -> dict[int, int]:
    """Return the boxes of those units whose exemplars are those that they were measured on before."""
    before = next((one for one in earlier.layers if one.spec.name == entry.spec.name), None) if earlier else None
    if earlier is None or before is None or before.fields is None or before.field_exemplars != count:
        return {}
    heights = read_part(earlier.store, before.fields)["effective_height_px"].to_pylist()
    known = exemplars(earlier, before, count)
    return {
        channel: heights[channel]
        for channel, own in wanted.items()
        if heights[channel] is not None
        and [sample.image_id for sample in own] == [sample.image_id for sample in known.get(channel, [])]
    }


def _entry(version: RankedVersion, entry: LayerEntry, count: int, heights: dict[int, int] | None) -> LayerEntry:
    """Write the effective boxes of a layer's units, null where they are the layer's, and return the layer with them."""
    units = np.arange(entry.spec.units)
    own = [(heights or {}).get(channel) for channel in units.tolist()]
    table = pa.table([pa.array(units, pa.int32()), pa.array(own, pa.int32())], schema=tables.UNIT_FIELDS)
    fields = write_table(version.store, layout.unit_fields(entry.spec.name, count, version.name), table)
    return entry.model_copy(update={"fields": fields, "field_exemplars": count})
