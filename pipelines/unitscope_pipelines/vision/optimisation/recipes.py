"""Recipes: named ways to optimise an input, every figure frozen.

Figures of a paper are marked by its table or section; all others are ours, found on EfficientNet-Lite0
(`benchmarks/optimise.py`): papers of 2009 and 2015 say nothing about such networks.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from unitscope_pipelines.vision.optimisation.transforms import Movement
from unitscope_schemas.errors import UsageError, listing


class Frozen(BaseModel):
    """A record that cannot be changed and takes no other fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Regularisation(Frozen):
    """Figures of the regularisers, which work on pixels after each step but the last; 0 leaves one out."""

    decay: float = 0.0
    """Share by which pixels come nearer to the mean colour."""
    blur_px: float = 0.0
    """Deviation of the blur in pixels."""
    blur_every: int = 0
    """Number of steps from one blur to the next."""
    small_value_percent: float = 0.0
    """Percentage of values, the smallest, that become zero."""
    small_norm_percent: float = 0.0
    """Percentage of pixels, those of the smallest norms, that become zero."""
    small_contribution_percent: float = 0.0
    """Percentage of pixels, those that matter least to the objective, that become zero."""
    contrast: float | None = None
    """Norm that pixels are scaled to, as the root of their mean square."""


class Recipe(Frozen):
    """A recipe holds everything that decides an optimised picture but network, objective, start and seed."""

    name: str
    parameterisation: Literal["pixels", "fourier"]
    """Variables that are optimised."""
    steps: int = Field(ge=1, le=100_000)
    rate: float = Field(gt=0)
    """Length of a step. For pixels, its root mean square over the pixels that a unit sees, the whole range being 1; for
    a spectrum, Adam's learning rate."""
    movement: Movement = Movement()
    regularisation: Regularisation = Regularisation()
    redirected_steps: int = 16
    """Number of first steps in which shut rectifiers pass gradients, as in lucid."""
    diversity: float = 0.0
    """Weight of the diversity of a batch, beside objectives divided by their size."""


def _yosinski(name: str, rate: float, **figures: Any) -> Recipe:
    """Return a recipe of Yosinski et al. 2015 with these figures of its regularisers."""
    return Recipe(name=name, parameterisation="pixels", steps=128, rate=rate, regularisation=Regularisation(**figures))


_ALL = (
    Recipe(
        name="erhan2009",
        parameterisation="pixels",
        steps=128,
        rate=0.02,
        regularisation=Regularisation(contrast=0.2),
    ),
    # decay, blur, percentiles: table 1 of Yosinski et al. 2015; its third row made most of the paper's pictures
    _yosinski("yosinski2015", rate=0.05, decay=0.0001, blur_px=1.0, blur_every=4),
    _yosinski("yosinski2015-a", rate=0.02, blur_px=0.5, blur_every=4, small_norm_percent=50),
    _yosinski("yosinski2015-b", rate=0.05, decay=0.3, small_norm_percent=20),
    _yosinski("yosinski2015-d", rate=0.02, blur_px=0.5, blur_every=4, small_contribution_percent=90),
    Recipe(
        name="olah2017",
        parameterisation="fourier",
        steps=128,
        rate=0.05,
        movement=Movement(jitter_px=8, jitter_share=0.1, rotate_deg=5, scale=0.1, least_field_px=16),
        diversity=1.0,
    ),
    Recipe(name="none", parameterisation="pixels", steps=64, rate=0.02),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""All recipes by name."""


def recipe(name: str, steps: int | None = None) -> Recipe:
    """Return the recipe of this name, with another number of steps if given.

    Raises UsageError for an unknown name, with the known ones, and for less than 1 or more than 100,000 steps.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe {name!r} is unknown; there are {listing(RECIPES)}")
    if steps is None:
        return RECIPES[name]
    if not 1 <= steps <= 100_000:
        raise UsageError(f"{steps} steps are not between 1 and 100,000")
    return RECIPES[name].model_copy(update={"steps": steps})
