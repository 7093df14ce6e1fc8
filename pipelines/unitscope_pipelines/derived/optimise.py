"""Pictures are optimised for a unit or a direction and stored; what is stored already is not made again."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from time import monotonic

import torch
from PIL import Image

from unitscope_pipelines.derived.visuals import NewPicture, find_visuals, shown_note, write_visual
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.vision.models.models import VisionModel, reload_model
from unitscope_pipelines.vision.optimisation.optimisation import (
    OptimisationSettings,
    OptimisedPictures,
    optimise_direction,
    optimise_unit,
)
from unitscope_pipelines.vision.recording.device import choose_device
from unitscope_schemas.answers.visuals import Visual, VisualKey
from unitscope_schemas.entries.model import ModelEntry
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.progress import Tell
from unitscope_schemas.units import LayerSpec, Target, UnitId


@dataclass(frozen=True)
class OptimisePlan:
    """What all pictures of a run have in common."""

    store: Store
    atlas_key: str
    model: ModelEntry
    layers: Mapping[str, LayerSpec]
    settings: OptimisationSettings
    objective: str
    direction: tuple[float, ...] | None
    """Vector that the pictures are made for instead of a unit: a number for each unit of a layer, which float32 holds
    exactly."""
    device: str
    trust_code: bool

    def keys(self, target: Target) -> list[VisualKey]:
        """Return the names of the pictures of a unit, or of the plan's direction."""
        recipe, start = self.settings.recipe, self.settings.start
        return [
            VisualKey(
                atlas_key=self.atlas_key,
                kind="optimised",
                layer=target.layer,
                channel=target.channel if isinstance(target, UnitId) else None,
                method=recipe.name,
                settings=recipe.model_dump(mode="json"),
                objective=self.objective,
                start=start.name,
                seed=self.settings.seed,
                number=number,
                count=self.settings.count,
                direction=self.direction,
            )
            for number in range(self.settings.count)
        ]

    def stored(self, target: Target) -> list[Visual] | None:
        """Return the pictures of a unit or direction, None unless all of them are stored."""
        return find_visuals(self.store, self.keys(target))


def make_plan(
    manifest: Manifest,
    store: Store,
    settings: OptimisationSettings,
    objective: str,
    device: str = "auto",
    trust_code: bool = False,
) -> OptimisePlan:
    """Return the plan for units of an atlas, by its model and layers."""
    return OptimisePlan(
        store=store,
        atlas_key=manifest.atlas_key,
        model=manifest.model,
        layers={entry.spec.name: entry.spec for entry in manifest.layers},
        settings=settings,
        objective=objective,
        direction=None,
        device=device,
        trust_code=trust_code,
    )


class Optimiser:
    """A task that makes and stores the pictures of a unit with one model, loaded when the first is made."""

    def __init__(self, plan: OptimisePlan) -> None:
        self.plan = plan
        self._device = choose_device(plan.device)

    def __call__(self, target: Target, tell: Tell | None = None) -> list[Visual]:
        """Return the pictures of a unit or direction, from the store or made now.

        Raises what `optimise_unit` and `write_visual` do.
        """
        plan = self.plan
        stored = plan.stored(target)
        if stored is not None:
            return stored
        started, layer = monotonic(), plan.layers[target.layer]
        optimised = self._optimise(layer, target, tell)
        seconds = (monotonic() - started) / plan.settings.count
        notes = (*optimised.notes, *shown_note(self._model.preprocessing))
        notes = notes if self._device.type == "cpu" else (*notes, f"made on {self._device}")
        channels = list(self._model.preprocessing.shown_channels)
        visuals = []
        for number, key in enumerate(plan.keys(target)):
            pixels = optimised.pictures[number][channels].permute(1, 2, 0).numpy()
            activation, location = optimised.activations[number], optimised.locations[number]
            picture = NewPicture(
                picture=Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels),
                activation=activation if isfinite(activation) else None,
                location=location,
                box=layer.receptive_field.box_at(location),
                notes=notes,
                seconds=seconds,
            )
            visuals.append(write_visual(plan.store, key, picture))
        return visuals

    def _optimise(self, layer: LayerSpec, target: Target, tell: Tell | None) -> OptimisedPictures:
        plan = self.plan
        if isinstance(target, UnitId):
            return optimise_unit(self._model, layer, target.channel, plan.settings, plan.objective, tell)
        vector = torch.tensor(plan.direction)
        return optimise_direction(self._model, layer, vector, plan.settings, plan.objective, tell)

    @cached_property
    def _model(self) -> VisionModel:
        model = reload_model(self.plan.model, self.plan.trust_code)
        model.module.to(self._device)
        return model
