"""Receptive fields of layers: the input pixels that can change their units, and those that mostly do."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unitscope_pipelines.vision.receptive_fields.dead_leaves import Shape, dead_leaves
from unitscope_pipelines.vision.receptive_fields.theoretical import like_input, theoretical_layers
from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.gradients import gradient_faults
from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.geometry import Location, ReceptiveField, Size
from unitscope_schemas.units import LayerSpec

ENERGY_SHARE = 0.9
"""Share of a gradient's energy that the effective field holds (Luo et al. 2016)."""

PICTURE_COUNT = 12
"""Number of synthetic pictures on which effective fields are measured."""
_PICTURES_AT_ONCE = 4
"""Number of pictures in one forward of that measurement."""

MARGIN = 1.25
"""Factor of the largest sample, which holds the share for some 95 % of units; enlarged it held it for each of 4,352
pairs of unit and photograph over the blocks of EfficientNet-Lite0, and each of 965 of a random ResNet-18."""


def measure_layers(
    model: nn.Module,
    names: Sequence[str],
    input_shape: Shape,
    seed: int = 0,
    picture_count: int = PICTURE_COUNT,
) -> list[LayerSpec]:
    """Return grid, units and receptive field of each named layer, for inputs of (channel, row, col).

    A layer is a module path, with `@1` for the second call of a module. Its output for an image is a map (channel,
    row, col, or channels last), tokens (token, channel) or a vector. With `picture_count` 0 the effective field is
    left as large as the theoretical one, and so is that of a layer whose gradient something cuts, with the reason. The
    model's mode and gradients are left as they were. Raises ModelError for a layer that is not there, is not called,
    does not depend on the input, or puts out something else, for example the heads of attention.
    """
    with _settled(model):
        layers = theoretical_layers(model, names, input_shape)
        try:
            effective, faults = effective_sizes(model, layers, input_shape, seed, picture_count), {}
        except Exception:
            # only the effective field needs gradients: layers without one keep the theoretical, and say why
            faults = gradient_faults(model, names, like_input(model, torch.zeros(1, *input_shape)))
            if not faults:
                raise
            sound = [layer for layer in layers if layer.name not in faults]
            effective = effective_sizes(model, sound, input_shape, seed, picture_count) if sound else {}
    return [
        _with_effective(
            layer, effective.get(layer.name) or _enlarged(layer.receptive_field, []), faults.get(layer.name)
        )
        for layer in layers
    ]


def _with_effective(layer: LayerSpec, size: Size, fault: str | None) -> LayerSpec:
    """Return the layer with this height and width of its effective field, or with what kept it from being measured."""
    field = layer.receptive_field.model_copy(update={"effective": size, "unmeasured": fault})
    return layer.model_copy(update={"receptive_field": field})


@contextmanager
def _settled(model: nn.Module) -> Iterator[None]:
    """Hold the model in evaluation mode, without gradients of its weights, within the context; restore both."""
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        model.requires_grad_(False)  # not chained: networks override train without returning themselves
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)


def effective_sizes(
    model: nn.Module,
    layers: Sequence[LayerSpec],
    input_shape: Shape,
    seed: int = 0,
    picture_count: int = PICTURE_COUNT,
) -> dict[str, Size]:
    """Return for each layer the height and width of the box around a peak that holds 90 % of the gradient's energy.

    They are measured at the peaks of random units on synthetic pictures, so that no corpus has a say in it: the
    largest of the samples, enlarged by a margin. A layer whose gradients are all zero keeps its theoretical size.
    """
    pictures = dead_leaves(picture_count, input_shape, np.random.default_rng(seed))
    heights: dict[str, list[int]] = {layer.name: [] for layer in layers}
    channels = {layer.name: _drawn_channels(layer, seed, picture_count) for layer in layers}
    for first in range(0, picture_count, _PICTURES_AT_ONCE):
        batch = slice(first, first + _PICTURES_AT_ONCE)
        in_batch = {name: drawn[batch] for name, drawn in channels.items()}
        for layer, peaks, energy in _gradients(model, layers, pictures[batch], in_batch):
            heights[layer.name] += _heights(layer.receptive_field, peaks, energy)
    return {layer.name: _enlarged(layer.receptive_field, heights[layer.name]) for layer in layers}


def _drawn_channels(layer: LayerSpec, seed: int, count: int) -> Int64[Tensor, " image"]:
    """Draw one unit for each picture; the layer's name is part of the seed, so that other layers change nothing."""
    generator = np.random.default_rng([seed, *layer.name.encode()])
    return torch.from_numpy(generator.integers(layer.units, size=count))


def _gradients(
    model: nn.Module,
    layers: Sequence[LayerSpec],
    pictures: Float[Tensor, "image channel row col"],
    channels: Mapping[str, Int64[Tensor, " image"]],
) -> Iterator[tuple[LayerSpec, list[Location], Float[Tensor, "image row col"]]]:
    """Yield for each layer of maps or tokens a unit's peak in each picture, and its squared gradient at every pixel."""
    leaf = like_input(model, pictures).contiguous(memory_format=torch.channels_last).requires_grad_()
    # clones, because an in-place module behind a layer would change what is differentiated
    with (
        torch.enable_grad(),
        record(model, [layer.name for layer in layers], lambda _, output: output.clone()) as outputs,
    ):
        model(leaf.clone())
    for layer in layers:
        output = outputs.pop(layer.name)
        if layer.kind == "vector" or not layer.placed:
            continue
        image = torch.arange(len(pictures), device=output.device)
        maps = as_map(output, layer)[image, channels[layer.name].to(output.device)].flatten(1)
        activation, flat = maps.max(1)
        (gradient,) = torch.autograd.grad(activation.sum(), leaf, retain_graph=True, materialize_grads=True)
        peaks = [layer.location(layer.prefix_tokens + index) for index in flat.tolist()]
        yield layer, peaks, gradient.float().square().sum(1).cpu()


def _heights(field: ReceptiveField, peaks: Sequence[Location], energy: Float[Tensor, "image row col"]) -> list[int]:
    """Return for each sample the least height of an effective box that holds the share of its energy.

    Samples without energy, or whose energy is not finite, are left out.
    """
    aspect = field.size or field.input
    heights = []
    for peak, pixels in zip(peaks, energy, strict=True):
        if not 0 < float(pixels.sum()) < math.inf:
            continue
        row, col = field.centre_at(peak)
        tall, wide = _least_sides(row, field.input.height), _least_sides(col, field.input.width)
        needed = torch.maximum(tall[:, None], -(-wide * aspect.height // aspect.width))
        within = torch.bincount(needed.flatten(), pixels.flatten().double()).cumsum(0)
        heights.append(int((within < ENERGY_SHARE * within[-1]).sum()))
    return heights


def _least_sides(centre: int, length: int) -> Int64[Tensor, " pixel"]:
    """Return for each pixel the least side of an effective box, moved into the input, that holds it."""
    pixel, side = torch.arange(length)[:, None], torch.arange(1, length + 1)
    start = torch.minimum((centre - side // 2).clamp(min=0), length - side)
    return 1 + ((pixel < start) | (pixel >= start + side)).sum(1)


def _enlarged(field: ReceptiveField, heights: Sequence[int]) -> Size:
    """Return the effective size in the proportions of the field; at most the field and the input."""
    aspect = field.size or field.input
    if not heights:
        height, width = aspect
    else:
        height = math.ceil(MARGIN * max(heights))
        width = math.ceil(height * aspect.width / aspect.height)
    return Size(min(height, aspect.height, field.input.height), min(width, aspect.width, field.input.width))
