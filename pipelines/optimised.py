"""Pictures optimised for a unit, made and stored; what is stored already is not made again."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from time import monotonic

from PIL import Image

from pipelines.vision.device import choose_device
from pipelines.vision.models import VisionModel, reload_model
from pipelines.vision.optimisation import Tell, Wish, optimise_unit
from pipelines.visuals import Made, find_visual, write_visual
from schemas.manifest import Manifest, ModelEntry
from schemas.units import LayerSpec, UnitId
from schemas.visuals import Visual, VisualKey


@dataclass(frozen=True)
class OptimisePlan:
    """What all pictures of a run have in common."""

    atlas: Path
    atlas_key: str
    model: ModelEntry
    layers: Mapping[str, LayerSpec]
    wish: Wish
    objective: str
    device: str
    trust_code: bool

    def keys(self, unit: UnitId) -> list[VisualKey]:
        """The names of a unit's pictures."""
        recipe, start = self.wish.recipe, self.wish.start
        return [
            VisualKey(
                atlas_key=self.atlas_key,
                kind="optimised",
                layer=unit.layer,
                channel=unit.channel,
                method=recipe.name,
                settings=recipe.model_dump(mode="json"),
                objective=self.objective,
                start=start.name,
                seed=self.wish.seed,
                number=number,
                count=self.wish.count,
            )
            for number in range(self.wish.count)
        ]

    def stored(self, unit: UnitId) -> list[Visual] | None:
        """The pictures of a unit if all of them are stored."""
        found = [find_visual(self.atlas, key) for key in self.keys(unit)]
        whole = [visual for visual in found if visual is not None]
        return whole if len(whole) == len(found) else None


def make_plan(
    manifest: Manifest, atlas: Path, wish: Wish, objective: str, device: str = "auto", trust_code: bool = False
) -> OptimisePlan:
    """The plan for an atlas: its model, its layers."""
    return OptimisePlan(
        atlas=atlas,
        atlas_key=manifest.atlas_key,
        model=manifest.model,
        layers={entry.spec.name: entry.spec for entry in manifest.layers},
        wish=wish,
        objective=objective,
        device=device,
        trust_code=trust_code,
    )


class Optimiser:
    """Makes and stores pictures with one model, loaded when the first is made; called once for each unit."""

    def __init__(self, plan: OptimisePlan) -> None:
        self.plan = plan
        self._device = choose_device(plan.device)

    def __call__(self, unit: UnitId, tell: Tell | None = None) -> list[Visual]:
        """The unit's pictures, from the store or made now; raises what `optimise_unit` and `write_visual` do."""
        plan = self.plan
        stored = plan.stored(unit)
        if stored is not None:
            return stored
        started, layer = monotonic(), plan.layers[unit.layer]
        found = optimise_unit(self._model, layer, unit.channel, plan.wish, plan.objective, tell)
        seconds = (monotonic() - started) / plan.wish.count
        notes = found.notes if self._device.type == "cpu" else (*found.notes, f"made on {self._device}")
        visuals = []
        for number, key in enumerate(plan.keys(unit)):
            pixels = found.pictures[number].permute(1, 2, 0).numpy()
            activation, location = found.activations[number], found.locations[number]
            made = Made(
                picture=Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels),
                activation=activation if isfinite(activation) else None,
                location=location,
                box=layer.receptive_field.box_at(location),
                notes=notes,
                seconds=seconds,
            )
            visuals.append(write_visual(plan.atlas, key, made))
        return visuals

    @cached_property
    def _model(self) -> VisionModel:
        model = reload_model(self.plan.model, self.plan.trust_code)
        model.module.to(self._device)
        return model
