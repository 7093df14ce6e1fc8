"""Projections from one location of one unit back to the pixels that it answered to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope_pipelines.vision.attribution.relu_backward import ReluBackward, notes
from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.gradients import cuts_named
from unitscope_pipelines.vision.recording.peaks import channels_first
from unitscope_pipelines.vision.recording.recording import output_of, record
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.questions import ProjectionMethod
from unitscope_schemas.units import LayerSpec

METHODS: dict[ProjectionMethod, str] = {
    "deconvnet": "Zeiler & Fergus 2014, section 2.1: switches, rectified signals, transposed filters",
    "guided": "Springenberg et al. 2014, section 3.4: the same, and only where the forward passed too",
    "gradient": "the gradient of the activation times the input",
}
"""Ways to project, and what each does in words."""


@dataclass(frozen=True)
class Projections:
    """One unit's activations, each projected to the pixels of its image."""

    pixels: Float[Tensor, "image channel row col"]
    """Projections in the units of the network's input, exactly zero outside the receptive field."""
    activation: Float[Tensor, " image"]
    """Activations that were projected."""
    passed: dict[str, int]
    """Number of operations between pixels and layer that are not linear, by name."""
    notes: tuple[str, ...]
    """Sentences that say what was done otherwise than in the method's paper, and why."""


def project(
    model: nn.Module,
    layer: LayerSpec,
    channel: int,
    images: Float[Tensor, "image channel row col"],
    locations: Sequence[Location],
    method: ProjectionMethod = "deconvnet",
) -> Projections:
    """Project a unit's activation at one location of each image back to the image's pixels.

    The model is in evaluation mode, and images are as it takes them. The forward ends at the layer. Where max-pooling's
    windows overlap and share a maximum, their signals add up. Raises ModelError where a layer cuts the gradient.
    """
    leaf = images.detach().clone().requires_grad_()
    backward = ReluBackward(method)
    with cuts_named(model, [layer.name], leaf):
        values = _values(model, (layer, channel), leaf, locations, backward)
        (signal,) = torch.autograd.grad(values, leaf, _start(values, method))
    pixels = signal * leaf.detach() if method == "gradient" else signal
    return Projections(
        pixels=pixels.float().cpu().contiguous(),
        activation=values.detach().float().cpu(),
        passed=dict(backward.passed),
        notes=notes(method, backward.passed),
    )


def signals(
    model: nn.Module,
    unit: tuple[LayerSpec, int],
    image: Float[Tensor, "1 channel height width"],
    location: Location,
    method: ProjectionMethod,
    at: LayerSpec,
) -> Float[Tensor, "unit row col"]:
    """Return what reaches the units of the layer `at`, on its grid, of the signal from one activation of `unit`.

    It is the signal of `project` on its way to the pixels. Raises UsageError where none reaches `at`, because that
    layer comes later.
    """
    arrived: list[Tensor] = []

    def keep(_name: str, output: Tensor) -> None:
        if output.requires_grad:
            # a hook, because an in-place module behind the layer would change which gradient is the output's
            output.register_hook(arrived.append)  # type: ignore[no-untyped-call]

    leaf = image.detach().clone().requires_grad_()
    with cuts_named(model, [unit[0].name], leaf):
        with record(model, [at.name], keep):
            values = _values(model, unit, leaf, [location], ReluBackward(method))
        torch.autograd.grad(values, leaf, _start(values, method))
    if not arrived:
        raise UsageError(f"no signal of {unit[0].name} reaches {at.name}: choose a layer before it")
    return as_map(arrived[0].float(), at)[0].cpu()


def _values(
    model: nn.Module,
    unit: tuple[LayerSpec, int],
    leaf: Float[Tensor, "image channel row col"],
    locations: Sequence[Location],
    backward: ReluBackward,
) -> Float[Tensor, " image"]:
    """Return one activation of a unit for each image, with the way back to the leaf."""
    layer, channel = unit
    # a copy, because a first module in place would change the leaf
    with torch.enable_grad(), backward:
        output = channels_first(output_of(model, layer.name, leaf.clone()), layer)
    return torch.stack([_at(output[number], layer, channel, location) for number, location in enumerate(locations)])


def _start(values: Float[Tensor, " image"], method: ProjectionMethod) -> Float[Tensor, " image"]:
    """Return the signals that set out: ones for the gradient, else the activations themselves."""
    return torch.ones_like(values) if method == "gradient" else values.detach()


def _at(output: Float[Tensor, "..."], layer: LayerSpec, channel: int, location: Location) -> Float[Tensor, ""]:
    """Return one activation of one image's output, in which a map's channels are first."""
    if layer.kind == "map":
        return output[channel, location.row, location.col]
    if layer.kind == "vector":
        return output[channel]
    within_grid = layer.prefix_tokens + location.row * layer.grid.width + location.col
    return output[location.col if location.row < 0 else within_grid, channel]
