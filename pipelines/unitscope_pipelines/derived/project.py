"""Exemplars of a unit are projected back to their pixels and stored; what is stored already is not made again."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from unitscope_pipelines.derived.visuals import NewPicture, find_visual, find_visuals, shown_note, write_visual
from unitscope_pipelines.storage.allowed_roots import PictureRoots
from unitscope_pipelines.storage.originals import Original, Originals
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.vision.attribution.deconvnet import METHODS, Projections, project
from unitscope_pipelines.vision.images.diverging import FAINT_SHARE, SHOWN_SHARE, Values, diverging_picture
from unitscope_pipelines.vision.images.preprocessing import Prepared, normalise, prepare, stacked
from unitscope_pipelines.vision.models.models import VisionModel, reload_model
from unitscope_pipelines.vision.recording.device import choose_device
from unitscope_schemas.answers.visuals import Visual, VisualKey
from unitscope_schemas.entries.model import ModelEntry, Preprocessing
from unitscope_schemas.geometry import Box, Location, Placement
from unitscope_schemas.questions import ProjectionMethod
from unitscope_schemas.units import LayerSpec, UnitId

AT_ONCE = 9
"""Count of images in one forward and backward."""
_CLOSE = 1e-3
"""Share of a recorded activation by which the forward that is projected may differ before that is said."""

Picture = TypeVar("Picture", bound="PlacedPicture")


class PlacedPicture(Protocol):
    """A picture that knows how it became the network's input."""

    @property
    def placement(self) -> Placement:
        """How the picture became the network's input."""


class ProjectionModel(Protocol[Picture]):
    """A model that reads pictures, and projects a unit's activation at one location of each back to their pixels."""

    def read(self, data: bytes) -> Picture:
        """Prepare the picture in these bytes; raises PictureError."""

    def project(
        self, pictures: Sequence[Picture], unit: UnitId, locations: Sequence[Location], method: ProjectionMethod
    ) -> Projections:
        """Project a unit's activation at one location of each picture back to its pixels."""


@dataclass(frozen=True)
class Exemplar:
    """A picture that a unit answers to."""

    image: Original
    location: Location
    """Location where the unit peaks on it."""
    activation: float
    seen: Box
    """Box of input pixels that are shown of the picture."""


@dataclass(frozen=True)
class UnitExemplars:
    """A unit with some of its exemplars."""

    unit: UnitId
    exemplars: tuple[Exemplar, ...]


@dataclass(frozen=True)
class ProjectPlan:
    """What all projections of a run have in common."""

    store: Store
    corpus: PictureRoots
    atlas_key: str
    model: ModelEntry
    preprocessing: Preprocessing
    layers: Mapping[str, LayerSpec]
    methods: Mapping[str, ProjectionMethod]
    """Method of each layer that units are projected from."""
    device: str
    trust_code: bool

    def key(self, unit: UnitId, exemplar: Exemplar) -> VisualKey:
        """Return the name of a projection."""
        method = self.methods[unit.layer]
        return VisualKey(
            atlas_key=self.atlas_key,
            kind="projection",
            layer=unit.layer,
            channel=unit.channel,
            # its stored name since there was no other gradient; the rules tell them apart
            method="gradient" if method == "gradient-x-input" else method,
            settings={"rules": METHODS[method], "shown_share": SHOWN_SHARE},
            image_id=exemplar.image.image_id,
            location=exemplar.location,
        )

    def stored(self, wanted: UnitExemplars) -> list[Visual] | None:
        """Return the projections of a unit's exemplars, None unless all of them are stored."""
        return find_visuals(self.store, [self.key(wanted.unit, exemplar) for exemplar in wanted.exemplars])


class Projector(Generic[Picture]):
    """A task that makes and stores projections by a model."""

    def __init__(self, plan: ProjectPlan, model: ProjectionModel[Picture]) -> None:
        self.plan = plan
        self._model = model
        self._originals = Originals(plan.corpus)

    def __call__(self, wanted: UnitExemplars) -> list[Visual]:
        """Return one projection for each exemplar, in their order, from the store or made now.

        Raises NotFoundError for a picture that is gone or was edited, and what `write_visual` raises.
        """
        plan, unit = self.plan, wanted.unit
        keys = [plan.key(unit, exemplar) for exemplar in wanted.exemplars]
        visuals = {key.id: find_visual(plan.store, key) for key in keys}
        missing = [exemplar for key, exemplar in zip(keys, wanted.exemplars, strict=True) if visuals[key.id] is None]
        for first in range(0, len(missing), AT_ONCE):
            batch = missing[first : first + AT_ONCE]
            for exemplar, picture in zip(batch, self._project(unit, batch), strict=True):
                key = plan.key(unit, exemplar)
                visuals[key.id] = write_visual(plan.store, key, picture)
        return [visual for key in keys if (visual := visuals[key.id]) is not None]

    def _project(self, unit: UnitId, batch: Sequence[Exemplar]) -> Iterator[NewPicture]:
        """Project a few images at once, and cut each projection to the box that its patch shows."""
        started = time.perf_counter()
        pictures = [self._model.read(self._originals.read_original(exemplar.image)) for exemplar in batch]
        locations = [exemplar.location for exemplar in batch]
        method = self.plan.methods[unit.layer]
        projections = self._model.project(pictures, unit, locations, method)
        seconds = (time.perf_counter() - started) / len(batch)
        for number, (picture, exemplar) in enumerate(zip(pictures, batch, strict=True)):
            seen = exemplar.seen
            pixels = projections.pixels[number, :, seen.top : seen.bottom, seen.left : seen.right].numpy()
            usual = projections.layer_signal[number]
            seen_channels = pixels[list(self.plan.preprocessing.shown_channels)]
            shown = diverging_picture(seen_channels, SHOWN_SHARE, FAINT_SHARE * usual)
            scale = _about_scale(shown.scale, seen_channels, method)
            faint, chosen = _faint(float(np.abs(pixels).max()), usual), shown_note(self.plan.preprocessing)
            drift = _drift(exemplar.activation, float(projections.activation[number]))
            yield NewPicture(
                picture=shown.picture,
                activation=exemplar.activation,
                location=exemplar.location,
                box=picture.placement.to_image(seen),
                notes=(scale, *chosen, *faint, *drift, *projections.notes),
                seconds=seconds,
            )


class PlannedModel:
    """The model of a plan on the plan's device, loaded when it is needed."""

    def __init__(self, plan: ProjectPlan) -> None:
        self.plan = plan

    def read(self, data: bytes) -> Prepared:
        """Prepare the picture in these bytes; raises PictureError."""
        return prepare(data, self.plan.preprocessing)

    def project(
        self, pictures: Sequence[Prepared], unit: UnitId, locations: Sequence[Location], method: ProjectionMethod
    ) -> Projections:
        """Project a unit's activation at one location of each picture back to its pixels, and note the device."""
        images = normalise(stacked([picture.pixels for picture in pictures]), self.plan.preprocessing)
        layer = self.plan.layers[unit.layer]
        projections = project(self._model.module, layer, unit.channel, images.to(self._device), locations, method)
        if self._device.type == "cpu":
            return projections
        return replace(projections, notes=(*projections.notes, f"made on {self._device}"))

    @cached_property
    def _device(self) -> torch.device:
        return choose_device(self.plan.device)

    @cached_property
    def _model(self) -> VisionModel:
        model = reload_model(self.plan.model, self.plan.trust_code)
        model.module.to(self._device)
        return model


def planned_projector(plan: ProjectPlan) -> Projector[Prepared]:
    """Return the task that projects by the plan's model."""
    return Projector(plan, PlannedModel(plan))


_UNITS_OF: Mapping[ProjectionMethod, str] = {
    "gradient": "in units of the activation for each of the network's input",
    "gradient-x-input": "in units of the activation",
}
"""Units of what projections show; without a word here they are the network's input's."""


def _about_scale(scale: float, pixels: Values, method: ProjectionMethod) -> str:
    """Return what grey, white and black are, and how many values are cut off there, as one sentence."""
    magnitudes = np.abs(pixels)
    sentence = f"grey is zero, white {scale:.4g} and black {-scale:.4g} " + _UNITS_OF.get(
        method, "in units of the network's input"
    )
    beyond = float((magnitudes > scale).mean())
    if not beyond:
        return f"{sentence}, nothing is cut off"
    return f"{sentence}, {100 * beyond:.2g} % of the values are cut off there, the largest of {magnitudes.max():.4g}"


def _faint(largest: float, usual: float) -> tuple[str, ...]:
    """Return what to say where hardly any of a signal reaches the pixels, beside those that the layer usually sends."""
    if largest >= FAINT_SHARE * usual and largest:
        return ()
    share = f"{largest / usual:.2g} of what a unit of its layer usually sends" if largest else "none at all"
    return (f"hardly any signal reaches the pixels: {share}, so the picture is dim",)


def _drift(recorded: float, again: float) -> tuple[str, ...]:
    """Return what to say where the forward in float32 misses the recorded activation, as in an atlas of bf16."""
    if abs(again - recorded) <= _CLOSE * abs(recorded):
        return ()
    return (f"recorded is an activation of {recorded:.4g}, projected in float32 is {again:.4g}",)
