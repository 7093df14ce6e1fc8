"""The receptive fields of layers and units, measured again with the model and compared with those that are stored."""

import random
from collections.abc import Collection, Iterator
from itertools import groupby

from unitscope_pipelines.indexing.ranking.unit_fields import FieldMeasurer, RankedVersion, exemplars, has_fields
from unitscope_pipelines.indexing.verification.fault import Fault
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.segments.ranked_rows import RankedRows
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.receptive_fields.effective import unit_height
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.manifest import LayerEntry, Manifest
from unitscope_schemas.units import LayerSpec

_SHARE, _PIXELS = 0.05, 2
"""Difference of effective boxes that rounding on other hardware may cause: it moves the pixel at which a share of the
gradient's energy is reached."""


def layer_faults(manifest: Manifest, model: VisionModel) -> Iterator[Fault]:
    """Yield the layers whose grid, units or receptive field the model does not have."""
    names = [entry.spec.name for entry in manifest.layers]
    for entry, spec in zip(manifest.layers, measure_layers(model.module, names, model.input_shape), strict=True):
        if _without_effective(entry.spec) != _without_effective(spec):
            yield Fault("layer", entry.spec.name, "grid, units or receptive field are not those of the model")
            continue
        before, now = entry.spec.receptive_field.effective, spec.receptive_field.effective
        if not all(map(_is_near, before, now)):
            yield Fault("layer", entry.spec.name, f"its effective field was {before}, is {now}")


def unit_field_faults(
    manifest: Manifest, store: Store, measurer: FieldMeasurer, sample: int, seed: int, broken: Collection[str]
) -> Iterator[Fault]:
    """Measure the boxes of some random units of each layer that has them again, and yield those that are others.

    Boxes that a version took over from another one were measured on that one's exemplars, and are left out.
    """
    version = RankedVersion.of(manifest, store)
    for entry in manifest.layers:
        if entry.fields is None or entry.fields.path in broken or not has_fields(entry.spec):
            continue
        table = read_part(store, entry.fields)
        heights = table["effective_height_px"].to_pylist()
        if table["unit"].to_pylist() != list(range(entry.spec.units)):
            yield Fault("boxes", entry.fields.path, "does not have one row a unit")
            continue
        ranked = RankedRows.of(store, entry.spec.name, manifest.segments)
        of_these_images = (manifest.built, *(one.name for one in manifest.segments if len(manifest.segments) == 1))
        is_own = entry.fields.path.endswith(tuple(f"-{name}.parquet" for name in of_these_images))
        if not is_own or any(part.path in broken for part in (entry.units, *ranked.parts())):
            continue
        yield from _of_layer(version, entry, heights, measurer, sample, seed)


def _of_layer(
    version: RankedVersion,
    entry: LayerEntry,
    heights: list[int | None],
    measurer: FieldMeasurer,
    sample: int,
    seed: int,
) -> Iterator[Fault]:
    of_units = exemplars(version, entry, entry.field_exemplars)
    channels = random.Random(seed).sample(sorted(of_units), min(sample, len(of_units)))
    measured = measurer([one for channel in channels for one in of_units[channel]])
    by_unit = groupby(sorted(measured, key=lambda one: one.channel), key=lambda one: one.channel)
    for channel, own in by_unit:
        found = [one.height for one in own]
        if None in found:
            continue  # a picture is gone or was edited, which the look at pictures says
        now, before = unit_height([height for height in found if height is not None]), heights[channel]
        if before is None or not _is_near(before, now):
            where = f"{entry.spec.name}:{channel}"
            yield Fault("boxes", where, f"its effective box was {before} px high, is {now}")


def _without_effective(layer: LayerSpec) -> LayerSpec:
    field = layer.receptive_field
    plain = field.model_copy(update={"effective": field.input, "unmeasured": None})
    return layer.model_copy(update={"receptive_field": plain})


def _is_near(before: int, now: int) -> bool:
    return abs(before - now) <= max(_PIXELS, _SHARE * before)
