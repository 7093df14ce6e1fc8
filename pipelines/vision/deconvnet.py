"""Projections: from one location of one unit back to the pixels that it answered to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipelines.vision.recording import record
from pipelines.vision.reduction import channels_first
from pipelines.vision.reversal import Reversal, notes
from schemas.errors import ModelError
from schemas.geometry import Location
from schemas.units import LayerSpec
from schemas.visuals import ProjectionMethod

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
    output = _output(model, layer.name, leaf, reversal)
    values = torch.stack(
        [_at(channels_first(output, layer)[number], layer, channel, place) for number, place in enumerate(locations)]
    )
    start = torch.ones_like(values) if method == "gradient" else values.detach()
    (signal,) = torch.autograd.grad(values, leaf, start)
    pixels = signal * leaf.detach() if method == "gradient" else signal
    return Projections(
        pixels=pixels.float().cpu().contiguous(),
        activation=values.detach().float().cpu(),
        passed=dict(reversal.passed),
        notes=notes(method, reversal.passed),
    )


class _Reached(Exception):  # noqa: N818  (no error: it ends the forward)
    """The layer's output, thrown out of the forward: what comes after it is not computed."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


def _output(model: nn.Module, layer: str, leaf: Tensor, reversal: Reversal) -> Tensor:
    def keep(_name: str, output: Tensor) -> None:
        raise _Reached(output)

    try:
        # a copy, because a first module in place would change the leaf
        with torch.enable_grad(), record(model, [layer], keep), reversal:
            model(leaf.clone())
    except _Reached as reached:
        return reached.output
    raise ModelError(f"layer {layer!r} was not called in a forward; choose another layer or call")


def _at(output: Float[Tensor, "..."], layer: LayerSpec, channel: int, place: Location) -> Float[Tensor, ""]:
    """One activation of one image's output, with a map's channels first."""
    if layer.kind == "map":
        return output[channel, place.row, place.col]
    if layer.kind == "vector":
        return output[channel]
    within_grid = layer.prefix_tokens + place.row * layer.grid.width + place.col
    return output[place.col if place.row < 0 else within_grid, channel]
