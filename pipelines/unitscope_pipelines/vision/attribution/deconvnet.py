"""Projections from one location of one unit back to the pixels that it answered to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope_pipelines.vision.attribution.relu_backward import GRADIENTS, ReluBackward, notes
from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.gradients import cuts_named
from unitscope_pipelines.vision.recording.peaks import arranged
from unitscope_pipelines.vision.recording.recording import output_of, record
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.questions import ProjectionMethod
from unitscope_schemas.units import LayerSpec, UnitId

METHODS: dict[ProjectionMethod, str] = {
    "deconvnet": "Zeiler & Fergus 2014, section 2.1: switches, rectified signals, transposed filters",
    "guided": "Springenberg et al. 2014, section 3.4: the same, and only where the forward passed too",
    "gradient": "the gradient of the activation",
    "gradient-x-input": "the gradient of the activation times the input",
}
"""Ways to project, and what each does in words."""
_WEAK = 1e-3
"""Change of an activation by a change of one in the input, below which a signal is compared with the layer's."""


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
    layer_signal: tuple[float, ...]
    """Largest magnitude that a unit of the layer usually projects to each image from there; 0 where the unit's own
    signal is strong enough to need no comparison."""


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
    windows overlap and share a maximum, their signals add up. Raises ModelError where a layer cuts the
    gradient, and UsageError for a signal that is not finite.
    """
    leaf = images.detach().clone().requires_grad_()
    backward = ReluBackward(method)
    with cuts_named(model, [layer.name], leaf):
        units = _values(model, layer, leaf, locations, backward)
        values = units[:, channel]
        (signal,) = torch.autograd.grad(values, leaf, _start(values, method), retain_graph=True)
    _refuse_non_finite(signal, values.detach(), UnitId(layer.name, channel), method)
    weak = signal.abs().amax((1, 2, 3)) < _WEAK * _start(values, method).abs()
    usual = _usual_signal(units, values, leaf, method) if weak.any() else torch.zeros_like(signal)
    if method == "gradient-x-input":
        signal, usual = signal * leaf.detach(), usual * leaf.detach()
    return Projections(
        pixels=signal.float().cpu().contiguous(),
        activation=values.detach().float().cpu(),
        passed=dict(backward.passed),
        notes=notes(method, backward.passed),
        layer_signal=tuple(usual.abs().amax((1, 2, 3)).tolist()),
    )


def _refuse_non_finite(
    signal: Float[Tensor, "image channel row col"], values: Float[Tensor, " image"], unit: UnitId, method: str
) -> None:
    """Raise UsageError that names the unit, and what would do, for signals of which there is no picture."""
    broken = (~signal.isfinite()).flatten(1).sum(1)
    if not broken.any():
        return
    number = int(broken.argmax())
    raise UsageError(
        f"the {method} projection of unit {unit} is not finite (NaN or infinite) at {int(broken[number])} of "
        f"{signal[number].numel()} values, from an activation of {float(values[number]):.4g}: it has no picture; "
        "try another --method, or pictures on which the unit and the layers before it are finite"
    )


def default_method(model: nn.Module, layer: LayerSpec, input_shape: tuple[int, int, int]) -> ProjectionMethod:
    """Return `deconvnet` where max-pooling lies on a way from the pixels to the layer, else `guided`.

    Without switches a deconvnet shows a unit's weights, and those as a checkerboard, instead of the picture.
    """
    device = next(model.parameters(), torch.empty(0)).device
    leaf = torch.zeros(1, *input_shape, device=device, requires_grad=True)
    with cuts_named(model, [layer.name], leaf), torch.enable_grad():
        output = output_of(model, layer.name, leaf.clone())
    nodes, seen = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if "MaxPool" in node.name():
            return "deconvnet"
        seen.add(node)
        nodes += [behind for behind, _ in node.next_functions]
    return "guided"


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
            values = _values(model, unit[0], leaf, [location], ReluBackward(method))[:, unit[1]]
        torch.autograd.grad(values, leaf, _start(values, method))
    if not arrived:
        raise UsageError(f"no signal of {unit[0].name} reaches {at.name}: choose a layer before it")
    return as_map(arrived[0].float(), at)[0].cpu()


def _values(
    model: nn.Module,
    layer: LayerSpec,
    leaf: Float[Tensor, "image channel row col"],
    locations: Sequence[Location],
    backward: ReluBackward,
) -> Float[Tensor, "image unit"]:
    """Return the activations of all units at one location of each image, with the way back to the leaf."""
    # a copy, because a first module in place would change the leaf
    with torch.enable_grad(), backward:
        output = arranged(output_of(model, layer.name, leaf.clone()), layer)
    return torch.stack([_at(output[number], layer, location) for number, location in enumerate(locations)])


def _usual_signal(
    units: Float[Tensor, "image unit"],
    values: Float[Tensor, " image"],
    leaf: Float[Tensor, "image channel row col"],
    method: ProjectionMethod,
) -> Float[Tensor, "image channel row col"]:
    """Return what a unit of the layer usually sends back where it starts as the projected one does.

    All units start at once with random signs, so that their squares add up, over the root of their number.
    """
    chance = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, units.shape, generator=chance).to(units) * 2 - 1
    starts = signs * _start(values, method).abs()[:, None] / units.shape[1] ** 0.5
    (usual,) = torch.autograd.grad(units, leaf, starts)
    return usual


def _start(values: Float[Tensor, " image"], method: ProjectionMethod) -> Float[Tensor, " image"]:
    """Return the signals that set out: ones for the gradient, else the activations themselves."""
    return torch.ones_like(values) if method in GRADIENTS else values.detach()


def _at(output: Float[Tensor, "..."], layer: LayerSpec, location: Location) -> Float[Tensor, " unit"]:
    """Return the activations at a location of one image's output, in which a map's channels are first."""
    if layer.kind == "map":
        return output[:, location.row, location.col]
    if layer.kind == "vector":
        return output
    within_grid = layer.prefix_tokens + location.row * layer.grid.width + location.col
    return output[location.col if location.row < 0 else within_grid]
