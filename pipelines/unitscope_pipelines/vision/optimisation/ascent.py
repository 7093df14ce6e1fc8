"""Gradient ascent: the steps by which a picture comes to please an objective."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.optimisation import regularisers, transforms
from unitscope_pipelines.vision.optimisation.objectives import Objective
from unitscope_pipelines.vision.optimisation.parameterisation import Parameterisation, Pictures, Pixels
from unitscope_pipelines.vision.optimisation.recipes import Recipe
from unitscope_pipelines.vision.optimisation.relu_gradient import ReluGradient
from unitscope_pipelines.vision.recording.gradients import cuts_named
from unitscope_pipelines.vision.recording.recording import outputs_of
from unitscope_schemas.errors import UsageError
from unitscope_schemas.progress import Tell


@dataclass(frozen=True)
class Ascent:
    """A recipe's steps up an objective."""

    model: VisionModel
    objective: Objective
    recipe: Recipe
    diversity: Objective | None
    """Objective that keeps the pictures of a batch apart, by the recipe's weight; None for a single picture."""
    generator: torch.Generator
    """Generator of the random movements."""

    def __call__(self, canvas: Parameterisation, tell: Tell | None) -> bool:
        """Take all steps, which change the canvas in place; return whether no step had a gradient.

        Raises UsageError where a gradient is not finite, and ModelError where a layer cuts it.
        """
        recipe, stalled = self.recipe, True
        adam = torch.optim.Adam([canvas.values], lr=recipe.rate) if recipe.parameterisation == "fourier" else None
        for step in range(recipe.steps):
            with (
                cuts_named(self.model.module, self._layers, self._input(canvas.pictures())),
                ReluGradient() if step < recipe.redirected_steps else nullcontext(),
            ):
                loss = -self._values(canvas.pictures()).sum()
                (gradient,) = torch.autograd.grad(loss, canvas.values)
            if not gradient.isfinite().all():
                raise UsageError(
                    f"the gradient of {self.objective.text} is not finite (NaN or infinite) at step {step}; try "
                    "another recipe, seed or start, or a unit whose layers before it are finite"
                )
            stalled &= not gradient.any()
            if adam:
                canvas.values.grad = gradient
                adam.step()
            elif isinstance(canvas, Pixels):
                self._step(canvas, -gradient, step)
            if tell:
                tell(step + 1, recipe.steps)
        return stalled

    @property
    def _layers(self) -> frozenset[str]:
        """The layers whose outputs the objectives read."""
        return self.objective.layers | (self.diversity.layers if self.diversity else frozenset())

    def _values(self, pictures: Pictures) -> Float[Tensor, " image"]:
        """Return the value of each picture of a batch, moved at random, with its share of diversity."""
        outputs = self._outputs(self._moved(self._input(pictures)))
        values = self.objective.evaluate(outputs)
        if self.diversity is not None:
            values = values + self.recipe.diversity * values.detach().abs() * self.diversity.evaluate(outputs)
        return values

    def _input(self, pictures: Pictures) -> Pictures:
        """Return pictures of values from 0 to 1 as the network takes them."""
        mean, std = (
            torch.tensor(figures, device=pictures.device)[:, None, None]
            for figures in (self.model.preprocessing.mean, self.model.preprocessing.std)
        )
        return ((pictures * 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    def _moved(self, inputs: Pictures) -> Pictures:
        """Return the inputs after the recipe's random movements."""
        movement = self.recipe.movement
        if movement.is_none:
            return inputs
        return transforms.moved(inputs, transforms.draw(movement, len(inputs), self.generator))

    def _outputs(self, inputs: Pictures) -> Mapping[str, Float[Tensor, "image ..."]]:
        """Return the outputs of the objectives' layers in float32; what comes behind them is not computed."""
        outputs = outputs_of(self.model.module, self._layers, inputs)
        return {layer: output.float() for layer, output in outputs.items()}

    def _step(self, canvas: Pixels, uphill: Pictures, step: int) -> None:
        """Ascend, regularise, clip, in the order of Yosinski's toolbox; the last step leaves nothing but a clip."""
        with torch.no_grad():
            values = canvas.values.detach()
            if step < self.recipe.steps - 1:
                seen = (uphill != 0).sum((1, 2, 3), keepdim=True).clamp(min=1)
                size = (uphill.square().sum((1, 2, 3), keepdim=True) / seen).sqrt()
                values = values + self.recipe.rate * uphill / size.clamp(min=torch.finfo(size.dtype).tiny)
                values = regularisers.regularised(values, uphill, self.recipe.regularisation, step)
            canvas.values.copy_(regularisers.clipped(values, canvas.mean))
