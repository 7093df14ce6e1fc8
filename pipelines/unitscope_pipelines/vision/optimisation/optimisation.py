"""Optimisation of inputs for an objective, and what a unit truly answers to them (Erhan et al. 2009 and after)."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope_pipelines.vision.images.diverging import FAINT_SHARE
from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.optimisation import objectives
from unitscope_pipelines.vision.optimisation.ascent import Ascent
from unitscope_pipelines.vision.optimisation.measurement import Direction, EightBit, measure, moved_shares
from unitscope_pipelines.vision.optimisation.memory import short_memory
from unitscope_pipelines.vision.optimisation.objectives import Objective
from unitscope_pipelines.vision.optimisation.parameterisation import (
    Fourier,
    Parameterisation,
    Pixels,
    Start,
    first_pixels,
    first_spectrum,
)
from unitscope_pipelines.vision.optimisation.recipes import Recipe
from unitscope_pipelines.vision.recording.device import device_of, one_thread
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.progress import Tell
from unitscope_schemas.units import LayerSpec


@dataclass(frozen=True)
class OptimisationSettings:
    """What decides optimised pictures besides network and objective."""

    recipe: Recipe
    start: Start = field(default_factory=Start)
    seed: int = 0
    """Seed of the noise of the start, and of the recipe's movements."""
    count: int = 1
    """Number of pictures, made in one batch and kept apart by the recipe's diversity."""


@dataclass(frozen=True)
class PictureBatch:
    """Pictures that were optimised together."""

    pictures: EightBit
    notes: tuple[str, ...]
    """Sentences that a person should know about how they were made."""


@dataclass(frozen=True)
class OptimisedPictures:
    """Optimised pictures, and the peak on each of the unit or vector that they are for, by the plain forward."""

    pictures: EightBit
    activations: tuple[float, ...]
    """Peaks, or lowest values where the objective is negative."""
    locations: tuple[Location, ...]
    """Locations of those values on the layer's grid."""
    notes: tuple[str, ...]
    """Sentences that a person should know about how they were made."""


def optimise_unit(
    model: VisionModel,
    layer: LayerSpec,
    channel: int,
    settings: OptimisationSettings,
    objective: str = "unit",
    tell: Tell | None = None,
) -> OptimisedPictures:
    """Optimise pictures for a unit; `objective` is one of `objectives.OBJECTIVES`.

    Activations are the unit's peaks on the pictures as they are stored, in float32: what is claimed is what is shown.
    Where the objective is negative they are its lowest values. The same settings give the same pixels on a CPU. Raises
    UsageError, and CapacityError where memory is short.
    """
    maximised = objectives.unit_objective(objective, layer, channel)
    return _optimise_and_measure(model, layer, _Goal(maximised, channel, objective.startswith("-")), settings, tell)


def optimise_direction(
    model: VisionModel,
    layer: LayerSpec,
    vector: Float[Tensor, " unit"],
    settings: OptimisationSettings,
    objective: str = "direction",
    tell: Tell | None = None,
) -> OptimisedPictures:
    """Optimise pictures for a vector over a layer's units; `objective` is one of `objectives.DIRECTIONS`.

    Activations are the largest products of the vector with the layer's output at one location. All else is as in
    `optimise_unit`; a vector of a single one and zeros gives that unit's pixels.
    """
    maximised = objectives.direction_objective(objective, layer, vector)
    return _optimise_and_measure(model, layer, _Goal(maximised, vector, objective.startswith("-")), settings, tell)


def optimise(
    model: VisionModel,
    objective: Objective,
    settings: OptimisationSettings,
    diversity: Objective | None = None,
    tell: Tell | None = None,
) -> PictureBatch:
    """Optimise pictures for any objective; `diversity` keeps those of a batch apart, by the recipe's weight.

    Raises UsageError, and CapacityError where memory is short.
    """
    recipe, generator = settings.recipe, torch.Generator().manual_seed(settings.seed)
    with short_memory(settings.count, model), one_thread(), torch.enable_grad():
        canvas = _canvas(model, settings, generator)
        stalled = Ascent(model, objective, recipe, diversity, generator)(canvas, tell)
        pixels = (canvas.pictures().detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    notes = (f"the gradient was zero for all {recipe.steps} steps: the start is shown",) if stalled else ()
    return PictureBatch(pixels, notes)


@dataclass(frozen=True)
class _Goal:
    """An objective of one layer, and what of the layer's output tells how far it is reached."""

    objective: Objective
    direction: Direction
    lowest: bool
    """Whether the lowest value is meant instead of the highest."""


def _optimise_and_measure(
    model: VisionModel, layer: LayerSpec, goal: _Goal, settings: OptimisationSettings, tell: Tell | None
) -> OptimisedPictures:
    """Optimise pictures for a goal in a layer, moved no further than its units see, and measure what they reach."""
    field_size = layer.receptive_field.size or layer.receptive_field.input
    movement = settings.recipe.movement.within(min(field_size))
    recipe = settings.recipe.model_copy(update={"movement": movement})
    if settings.count > 1 and not recipe.diversity:
        raise UsageError(f"recipe {recipe.name} has no diversity: make one picture at a time, with other seeds")
    diversity = objectives.diversity(layer) if settings.count > 1 else None
    batch = optimise(model, goal.objective, replace(settings, recipe=recipe), diversity, tell)
    activations, locations = measure(model, layer, goal.direction, batch.pictures, goal.lowest)
    shares = moved_shares(model, layer, goal.direction, batch.pictures, goal.lowest)
    return OptimisedPictures(batch.pictures, activations, locations, (*batch.notes, *_faint(shares)))


def _faint(shares: tuple[tuple[float, float], ...]) -> tuple[str, ...]:
    """Return what to say of pictures that hardly move what they are made for, as of a unit without weights."""
    moved, share = max(shares, key=lambda pair: pair[1])
    if share >= FAINT_SHARE:
        return ()
    return (
        f"hardly anything of the unit is in the picture: it moves it by {moved:.2g} from where plain grey has it, "
        f"{share:.2g} of what it moves a unit of this layer by",
    )


def _canvas(model: VisionModel, settings: OptimisationSettings, generator: torch.Generator) -> Parameterisation:
    """Return the variables of the start; noise is drawn on the CPU, so that it is the same for every device."""
    shape, device = torch.Size([settings.count, *model.input_shape]), device_of(model.module)
    mean = torch.tensor(model.preprocessing.mean, device=device) / 255
    if settings.recipe.parameterisation == "fourier":
        return Fourier(first_spectrum(settings.start, shape, generator).to(device), shape[3])
    return Pixels(first_pixels(settings.start, shape, mean.cpu(), generator).to(device), mean)
