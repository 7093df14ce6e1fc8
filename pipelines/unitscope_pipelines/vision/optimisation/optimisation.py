"""Inputs made for an objective, and what a unit truly answers to them (Erhan et al. 2009 and after)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unitscope_pipelines.vision.images.preprocessing import normalise
from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.optimisation import objectives, regularisers, transforms
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
from unitscope_pipelines.vision.optimisation.relu_gradient import Redirected
from unitscope_pipelines.vision.recording.peaks import peaks
from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.errors import CapacityError, UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.progress import Tell
from unitscope_schemas.units import LayerSpec

EightBit = UInt8[Tensor, "image channel row col"]
Along = int | Float[Tensor, " unit"]
"""What is looked at in a layer's output: a channel, or the product with a vector over its units."""


@dataclass(frozen=True)
class Wish:
    """What is to be made, besides for which objective: by which recipe, from which start and seed, how many."""

    recipe: Recipe
    start: Start = field(default_factory=Start)
    seed: int = 0
    count: int = 1


@dataclass(frozen=True)
class Optimised:
    """8-bit pictures in the size of the input, and the peak on each of what they are for, by the plain forward."""

    pictures: EightBit
    activations: tuple[float, ...]
    locations: tuple[Location, ...]
    notes: tuple[str, ...]


def optimise_unit(
    model: VisionModel, layer: LayerSpec, channel: int, wish: Wish, objective: str = "unit", tell: Tell | None = None
) -> Optimised:
    """Pictures for a unit; `objective` is one of `objectives.OBJECTIVES`.

    Activations are the unit's peaks on the pictures as they are stored, in float32: what is claimed is what is shown.
    Where the objective is negative they are its lowest values. The same wish gives the same pixels on a CPU. Raises
    UsageError, and CapacityError where memory is short.
    """
    aim = _Aim(layer, channel, objectives.of_unit(objective, layer, channel), objective.startswith("-"))
    return _judged(model, aim, wish, tell)


def optimise_direction(
    model: VisionModel,
    layer: LayerSpec,
    vector: Float[Tensor, " unit"],
    wish: Wish,
    objective: str = "direction",
    tell: Tell | None = None,
) -> Optimised:
    """Pictures for a vector over a layer's units; `objective` is one of `objectives.DIRECTIONS`.

    Activations are the largest products of the vector with the layer's output at one location. All else is as in
    `optimise_unit`, and of a vector that is a single one and zeros so are the pixels.
    """
    aim = _Aim(layer, vector, objectives.of_direction(objective, layer, vector), objective.startswith("-"))
    return _judged(model, aim, wish, tell)


@dataclass(frozen=True)
class _Aim:
    """An objective of one layer, and what of the layer's output tells how far it is reached: the highest value, or the
    lowest."""

    layer: LayerSpec
    along: Along
    objective: Objective
    lowest: bool


def _judged(model: VisionModel, aim: _Aim, wish: Wish, tell: Tell | None) -> Optimised:
    """Pictures for an aim, and what they reach."""
    layer = aim.layer
    seen = layer.receptive_field.size or layer.receptive_field.input
    movement = wish.recipe.movement.within(min(seen))
    recipe = wish.recipe.model_copy(update={"movement": movement})
    if wish.count > 1 and not recipe.diversity:
        raise UsageError(f"recipe {recipe.name} has no diversity: make one picture at a time, with other seeds")
    varied = objectives.diversity(layer) if wish.count > 1 else None
    made = optimise(model, aim.objective, Wish(recipe, wish.start, wish.seed, wish.count), varied, tell)
    activations, locations = measure(model, layer, aim.along, made.pictures, aim.lowest)
    return Optimised(made.pictures, activations, locations, made.notes)


@dataclass(frozen=True)
class Pictures:
    pictures: EightBit
    notes: tuple[str, ...]


def optimise(
    model: VisionModel, objective: Objective, wish: Wish, varied: Objective | None = None, tell: Tell | None = None
) -> Pictures:
    """Pictures for any objective; `varied` keeps those of a batch apart, by the recipe's diversity."""
    generator = torch.Generator().manual_seed(wish.seed)
    with short_memory(wish.count, model), _one_thread(), torch.enable_grad():
        canvas = _canvas(model, wish, generator)
        climb = _Climb(model, objective, wish.recipe, varied, generator)
        stalled = climb(canvas, tell)
        pixels = (canvas.pictures().detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    notes = (f"the gradient was zero for all {wish.recipe.steps} steps: the start is shown",) if stalled else ()
    return Pictures(pixels, notes)


def measure(
    model: VisionModel, layer: LayerSpec, along: Along, pictures: EightBit, lowest: bool = False
) -> tuple[tuple[float, ...], tuple[Location, ...]]:
    """The peak (or lowest value) of a unit, or of a vector over units, on each 8-bit picture and where it lies, by the
    plain forward, one picture at a time."""
    activations, locations, sign = [], [], -1.0 if lowest else 1.0
    with (
        short_memory(1, model),
        _one_thread(),
        torch.inference_mode(),
        record(model.module, [layer.name], lambda _, output: sign * _values(output.float(), layer, along)) as outputs,
    ):
        for picture in pictures:
            model.module(normalise(picture[None].to(_device(model)), model.preprocessing))
            found = peaks(outputs[layer.name], layer.name)
            activations.append(sign * float(found.activation))
            locations.append(layer.location(int(found.location)))
    return tuple(activations), tuple(locations)


def _values(output: Tensor, layer: LayerSpec, along: Along) -> Tensor:
    """A layer's output with a single unit instead of all: one of them, or their product with a vector."""
    units = output.movedim(1, -1) if layer.kind == "map" and not layer.channels_last else output
    chosen = units[..., along] if isinstance(along, int) else units @ along.to(units)
    return chosen.unsqueeze(1 if layer.kind == "map" else -1)


@contextmanager
def short_memory(count: int, model: VisionModel) -> Iterator[None]:
    """Raises CapacityError instead of what torch raises when there is not enough memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        _, rows, cols = model.input_shape
        raise CapacityError(
            f"not enough memory to optimise {count} pictures of {rows} × {cols} pixels at once through "
            f"{model.entry.spec}: make fewer at a time, or on a device with more memory"
        ) from None


class _Reached(Exception):  # noqa: N818  (no error: the rest of a forward is not needed)
    """All layers of the objective are recorded."""


class _Climb:
    """Steps up an objective."""

    def __init__(
        self,
        model: VisionModel,
        objective: Objective,
        recipe: Recipe,
        varied: Objective | None,
        generator: torch.Generator,
    ) -> None:
        self.model, self.objective, self.recipe, self.varied = model, objective, recipe, varied
        self.generator = generator
        self.layers = objective.layers | (varied.layers if varied else frozenset())

    def __call__(self, canvas: Parameterisation, tell: Tell | None) -> bool:
        """Take all steps; returns whether no step had a gradient."""
        recipe, stalled = self.recipe, True
        adam = torch.optim.Adam([canvas.values], lr=recipe.rate) if recipe.parameterisation == "fourier" else None
        for step in range(recipe.steps):
            with Redirected() if step < recipe.redirected_steps else nullcontext():
                loss = -self._values(canvas.pictures()).sum()
                (gradient,) = torch.autograd.grad(loss, canvas.values)
            if not gradient.isfinite().all():
                raise UsageError(f"the gradient of {self.objective.text} is not finite at step {step}")
            stalled &= not gradient.any()
            if adam:
                canvas.values.grad = gradient
                adam.step()
            elif isinstance(canvas, Pixels):
                self._step(canvas, -gradient, step)
            if tell:
                tell(step + 1, recipe.steps)
        return stalled

    def _values(self, pictures: Tensor) -> Float[Tensor, " image"]:
        outputs = self._outputs(self._moved(self._input(pictures)))
        values = self.objective.of(outputs)
        if self.varied is not None:
            values = values + self.recipe.diversity * values.detach().abs() * self.varied.of(outputs)
        return values

    def _input(self, pictures: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(figures, device=pictures.device)[:, None, None]
            for figures in (self.model.preprocessing.mean, self.model.preprocessing.std)
        )
        return ((pictures * 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    def _moved(self, inputs: Tensor) -> Tensor:
        movement = self.recipe.movement
        if movement.is_none:
            return inputs
        return transforms.moved(inputs, transforms.draw(movement, len(inputs), self.generator))

    def _outputs(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """The outputs of the objective's layers; what comes behind them is not computed."""
        missing = set(self.layers)

        def keep(layer: str, output: Tensor) -> Tensor:
            missing.discard(layer)
            kept[layer] = output.float().clone()  # an in-place module behind the layer would change what is kept
            if not missing:
                raise _Reached
            return output

        kept: dict[str, Tensor] = {}
        with record(self.model.module, sorted(self.layers), keep), suppress(_Reached):
            self.model.module(inputs)
        return kept

    def _step(self, canvas: Pixels, uphill: Tensor, step: int) -> None:
        """Ascend, regularise, clip, in the order of Yosinski's toolbox; the last step leaves nothing but a clip."""
        with torch.no_grad():
            values = canvas.values.detach()
            if step < self.recipe.steps - 1:
                seen = (uphill != 0).sum((1, 2, 3), keepdim=True).clamp(min=1)
                size = (uphill.square().sum((1, 2, 3), keepdim=True) / seen).sqrt()
                values = values + self.recipe.rate * uphill / size.clamp(min=torch.finfo(size.dtype).tiny)
                values = regularisers.regularised(values, uphill, self.recipe.regularisation, step)
            canvas.values.copy_(regularisers.clipped(values, canvas.mean))


def _canvas(model: VisionModel, wish: Wish, generator: torch.Generator) -> Parameterisation:
    """The variables of the start; noise is drawn on the CPU, so that it is the same for every device."""
    shape, device = torch.Size([wish.count, *model.input_shape]), _device(model)
    mean = torch.tensor(model.preprocessing.mean, device=device) / 255
    if wish.recipe.parameterisation == "fourier":
        return Fourier(first_spectrum(wish.start, shape, generator).to(device), shape[3])
    return Pixels(first_pixels(wish.start, shape, mean.cpu(), generator).to(device), mean)


def _device(model: VisionModel) -> torch.device:
    return next((one.device for one in model.module.parameters()), torch.device("cpu"))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Kernels on one thread: with more, sums are rounded otherwise, and pixels with them."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
