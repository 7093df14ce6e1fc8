"""Exemplars of a unit projected back to their pixels, made and stored; what is stored already is not made again."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch

from unitscope_pipelines.derived.visuals import Made, find_visual, write_visual
from unitscope_pipelines.storage.originals import Original, Originals
from unitscope_pipelines.storage.stores import Root
from unitscope_pipelines.vision.attribution.deconvnet import METHODS, Projections, project
from unitscope_pipelines.vision.images.diverging import SHOWN_SHARE, diverging_picture
from unitscope_pipelines.vision.images.preprocessing import Prepared, normalise, prepare
from unitscope_pipelines.vision.models.models import VisionModel, reload_model
from unitscope_pipelines.vision.recording.device import choose_device
from unitscope_schemas.answers.visuals import Visual, VisualKey
from unitscope_schemas.geometry import Box, Location, Placement
from unitscope_schemas.manifest import ModelEntry, Preprocessing
from unitscope_schemas.questions import ProjectionMethod
from unitscope_schemas.units import LayerSpec, UnitId

AT_ONCE = 9
"""Images in one forward and backward."""
_CLOSE = 1e-3
"""Of a recorded activation: how far the forward that is projected may be from it before that is said."""

Picture = TypeVar("Picture", bound="Placed")


class Placed(Protocol):
    """A picture that knows how it became the network's input."""

    @property
    def placement(self) -> Placement: ...


class Model(Protocol[Picture]):
    """Reads pictures, and projects a unit's activation at one location of each back to their pixels."""

    def read(self, data: bytes) -> Picture: ...

    def project(
        self, pictures: Sequence[Picture], unit: UnitId, locations: Sequence[Location], method: ProjectionMethod
    ) -> Projections: ...


@dataclass(frozen=True)
class Exemplar:
    """One picture that a unit answers to: where it peaks, how high, and the input pixels that are shown of it."""

    image: Original
    location: Location
    activation: float
    seen: Box


@dataclass(frozen=True)
class UnitExemplars:
    unit: UnitId
    exemplars: tuple[Exemplar, ...]


@dataclass(frozen=True)
class ProjectPlan:
    """What all projections of a run have in common."""

    atlas: Root
    corpus: str
    atlas_key: str
    model: ModelEntry
    preprocessing: Preprocessing
    layers: Mapping[str, LayerSpec]
    method: ProjectionMethod
    device: str
    trust_code: bool

    def key(self, unit: UnitId, exemplar: Exemplar) -> VisualKey:
        """The name of a projection."""
        return VisualKey(
            atlas_key=self.atlas_key,
            kind="projection",
            layer=unit.layer,
            channel=unit.channel,
            method=self.method,
            settings={"rules": METHODS[self.method], "shown_share": SHOWN_SHARE},
            image_id=exemplar.image.image_id,
            location=exemplar.location,
        )

    def stored(self, wanted: UnitExemplars) -> list[Visual] | None:
        """The projections of a unit's exemplars if all of them are stored."""
        found = [find_visual(self.atlas, self.key(wanted.unit, exemplar)) for exemplar in wanted.exemplars]
        whole = [visual for visual in found if visual is not None]
        return whole if len(whole) == len(found) else None


class Projector:
    """Makes and stores projections by a model, or one of its own, which is loaded when the first is made."""

    def __init__(self, plan: ProjectPlan, model: "Model[Any] | None" = None) -> None:
        self.plan = plan
        self._model = model or _OwnModel(plan)
        self._originals = Originals(plan.corpus)

    def __call__(self, wanted: UnitExemplars) -> list[Visual]:
        """One projection for each exemplar, in their order, from the store or made now.

        Raises NotFoundError for a picture that is gone or was edited, and what `write_visual` raises.
        """
        plan, unit = self.plan, wanted.unit
        keys = [plan.key(unit, exemplar) for exemplar in wanted.exemplars]
        found = {key.id: find_visual(plan.atlas, key) for key in keys}
        missing = [one for key, one in zip(keys, wanted.exemplars, strict=True) if found[key.id] is None]
        for first in range(0, len(missing), AT_ONCE):
            part = missing[first : first + AT_ONCE]
            for exemplar, made in zip(part, self._made(unit, part), strict=True):
                key = plan.key(unit, exemplar)
                found[key.id] = write_visual(plan.atlas, key, made)
        return [visual for key in keys if (visual := found[key.id]) is not None]

    def _made(self, unit: UnitId, part: Sequence[Exemplar]) -> Iterator[Made]:
        """Projections of a few images at once, each cut to the box that its patch shows."""
        started = time.perf_counter()
        pictures = [self._model.read(self._originals.read_original(one.image)) for one in part]
        found = self._model.project(pictures, unit, [one.location for one in part], self.plan.method)
        seconds = (time.perf_counter() - started) / len(part)
        for number, (picture, exemplar) in enumerate(zip(pictures, part, strict=True)):
            seen = exemplar.seen
            pixels = found.pixels[number, :, seen.top : seen.bottom, seen.left : seen.right].numpy()
            shown = diverging_picture(pixels, SHOWN_SHARE)
            scale = (
                f"grey is zero, white {shown.scale:.4g} and black {-shown.scale:.4g} in units of the network's input"
            )
            drift = _drift(exemplar.activation, float(found.activation[number]))
            yield Made(
                picture=shown.picture,
                activation=exemplar.activation,
                location=exemplar.location,
                box=picture.placement.to_image(seen),
                notes=(scale, *drift, *found.notes),
                seconds=seconds,
            )


class _OwnModel:
    """The model of a plan, on its device."""

    def __init__(self, plan: ProjectPlan) -> None:
        self.plan = plan

    def read(self, data: bytes) -> Prepared:
        return prepare(data, self.plan.preprocessing)

    def project(
        self, pictures: Sequence[Prepared], unit: UnitId, locations: Sequence[Location], method: ProjectionMethod
    ) -> Projections:
        images = normalise(torch.stack([picture.pixels for picture in pictures]), self.plan.preprocessing)
        layer = self.plan.layers[unit.layer]
        found = project(self._model.module, layer, unit.channel, images.to(self._device), locations, method)
        return found if self._device.type == "cpu" else replace(found, notes=(*found.notes, f"made on {self._device}"))

    @cached_property
    def _device(self) -> torch.device:
        return choose_device(self.plan.device)

    @cached_property
    def _model(self) -> VisionModel:
        model = reload_model(self.plan.model, self.plan.trust_code)
        model.module.to(self._device)
        return model


def _drift(recorded: float, again: float) -> tuple[str, ...]:
    """What to say where the forward in float32 does not reach the recorded activation, as in an atlas of bf16."""
    if abs(again - recorded) <= _CLOSE * abs(recorded):
        return ()
    return (f"recorded is an activation of {recorded:.4g}, projected in float32 is {again:.4g}",)
