"""Projections: from one location of one unit back to the pixels that it answered to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope_pipelines.vision.attribution.relu_backward import Reversal, notes
from unitscope_pipelines.vision.recording.embedding import as_map
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


@dataclass(frozen=True)
class Projections:
    """One unit's activations, each projected to the pixels of its image.

    `pixels` are in the units of the network's input, exactly zero outside the receptive field. `passed` counts what
    is not linear between pixels and layer; `notes` say what was done otherwise than the method's paper, and why.
    """

    pixels: Float[Tensor, "image channel row col"]
    activation: Float[Tensor, " image"]
    passed: dict[str, int]
    notes: tuple[str, ...]


def project(
    model: nn.Module,
    layer: LayerSpec,
    channel: int,
    images: Float[Tensor, "image channel row col"],
    locations: Sequence[Location],
    method: ProjectionMethod = "deconvnet",
) -> Projections:
    """Project a unit's activation at one location of each image back to the image's pixels.

    The model is in evaluation mode, images are as it takes them. The forward ends at the layer. Where max-pooling's
    windows overlap and share a maximum, their signals add up.
    """
    leaf = images.detach().clone().requires_grad_()
    reversal = Reversal(method)
    values = _values(model, layer, channel, leaf, locations, reversal)
    (signal,) = torch.autograd.grad(values, leaf, _start(values, method))
    pixels = signal * leaf.detach() if method == "gradient" else signal
    return Projections(
        pixels=pixels.float().cpu().contiguous(),
        activation=values.detach().float().cpu(),
        passed=dict(reversal.passed),
        notes=notes(method, reversal.passed),
    )


def signals(
    model: nn.Module,
    unit: tuple[LayerSpec, int],
    image: Float[Tensor, "1 channel height width"],
    location: Location,
    method: ProjectionMethod,
    at: LayerSpec,
) -> Float[Tensor, "unit row col"]:
    """What reaches the units of the layer `at`, on its grid, of the signal that starts at one activation of `unit`.

    The same signal as of `project`, on its way. Raises UsageError where none reaches `at`, as it comes later.
    """
    reached: list[Tensor] = []

    def keep(_name: str, output: Tensor) -> None:
        if output.requires_grad:  # of a hook, as a module in place behind the layer would change what a tensor's is
            output.register_hook(reached.append)  # type: ignore[no-untyped-call]

    leaf = image.detach().clone().requires_grad_()
    with record(model, [at.name], keep):
        values = _values(model, *unit, leaf, [location], Reversal(method))
    torch.autograd.grad(values, leaf, _start(values, method))
    if not reached:
        raise UsageError(f"no signal of {unit[0].name} reaches {at.name}: choose a layer before it")
    return as_map(reached[0].float(), at)[0].cpu()


def _values(
    model: nn.Module,
    layer: LayerSpec,
    channel: int,
    leaf: Tensor,
    locations: Sequence[Location],
    reversal: Reversal,
) -> Float[Tensor, " image"]:
    """One activation for each image, with the way back to the leaf."""
    # a copy, because a first module in place would change the leaf
    with torch.enable_grad(), reversal:
        output = channels_first(output_of(model, layer.name, leaf.clone()), layer)
    return torch.stack([_at(output[number], layer, channel, place) for number, place in enumerate(locations)])


def _start(values: Float[Tensor, " image"], method: ProjectionMethod) -> Float[Tensor, " image"]:
    return torch.ones_like(values) if method == "gradient" else values.detach()


def _at(output: Float[Tensor, "..."], layer: LayerSpec, channel: int, place: Location) -> Float[Tensor, ""]:
    """One activation of one image's output, with a map's channels first."""
    if layer.kind == "map":
        return output[channel, place.row, place.col]
    if layer.kind == "vector":
        return output[channel]
    within_grid = layer.prefix_tokens + place.row * layer.grid.width + place.col
    return output[place.col if place.row < 0 else within_grid, channel]
