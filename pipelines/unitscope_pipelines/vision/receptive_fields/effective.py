"""Effective receptive fields: the pixels around a peak that hold most of the energy of its gradient."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unitscope_pipelines.vision.receptive_fields.dead_leaves import Shape, dead_leaves
from unitscope_pipelines.vision.receptive_fields.theoretical import like_input
from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.recording import outputs_of
from unitscope_schemas.geometry import Location, ReceptiveField, Size
from unitscope_schemas.units import LayerSpec

ENERGY_SHARE = 0.9
"""Share of a gradient's energy that the effective field holds (Luo et al. 2016)."""

PICTURE_COUNT = 12
"""Number of synthetic pictures on which the effective fields of layers are measured."""
_PICTURES_AT_ONCE = 4
"""Number of pictures in one forward of that measurement."""

MARGIN = 1.25
"""Factor of a layer's largest sample, which holds the share for some 95 % of units; enlarged it held it for each of
4,352 pairs of unit and photograph over the blocks of EfficientNet-Lite0, and each of 965 of a random ResNet-18."""

_UNIT_SPREAD = 0.7
"""Share by which a unit's largest sample is enlarged, over the number of its samples. Of the first nine exemplars of
units of EfficientNet-Lite0, boxes that were measured on the first four so hold the share of 95 to 99 %, by layer."""


class UnitSample(NamedTuple):
    """A unit, and the number of a picture among some."""

    layer: str
    channel: int
    picture: int


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
    placed = [layer for layer in layers if has_places(layer)]
    channels = {layer.name: _drawn_channels(layer, seed, picture_count) for layer in placed}
    heights: dict[str, list[int]] = {layer.name: [] for layer in layers}
    for first in range(0, picture_count, _PICTURES_AT_ONCE):
        batch = pictures[first : first + _PICTURES_AT_ONCE]
        samples = [
            UnitSample(layer.name, channels[layer.name][first + number], number)
            for layer in placed
            for number in range(len(batch))
        ]
        for sample, height in zip(samples, effective_heights(model, placed, batch, samples), strict=True):
            heights[sample.layer] += [height] if height is not None else []
    return {
        layer.name: layer.receptive_field.of_height(
            math.ceil(MARGIN * max(heights[layer.name])) if heights[layer.name] else None
        )
        for layer in layers
    }


def has_places(layer: LayerSpec) -> bool:
    """Tell whether units of a layer peak somewhere in the picture."""
    return layer.kind != "vector" and layer.placed


def unit_height(samples: Sequence[int]) -> int:
    """Return the height of a unit's effective box from those that its samples need: the largest, and a margin.

    The fewer samples there are, the larger is the margin.
    """
    return math.ceil((1 + _UNIT_SPREAD / len(samples)) * max(samples))


def effective_heights(
    model: nn.Module,
    layers: Sequence[LayerSpec],
    pictures: Float[Tensor, "image channel row col"],
    samples: Sequence[UnitSample],
    running: AbstractContextManager[object] | None = None,
) -> list[int | None]:
    """Return for each sample the least height of an effective box around its unit's peak in its picture.

    One forward of all pictures, within the context `running`, serves all samples; a gradient serves one unit of a layer
    in each picture. A sample is None where the gradient has no energy, or none that is finite.
    """
    leaf = like_input(model, pictures).contiguous(memory_format=torch.channels_last).requires_grad_()
    # outputs are clones, because an in-place module behind a layer would change what is differentiated
    with torch.enable_grad(), running or nullcontext():
        outputs = outputs_of(model, list({sample.layer for sample in samples}), leaf.clone())
    heights: list[int | None] = [None] * len(samples)
    for name, turn in _turns(samples):
        layer = next(layer for layer in layers if layer.name == name)
        image = torch.tensor([samples[number].picture for number in turn])
        channels = torch.tensor([samples[number].channel for number in turn])
        activation, flat = as_map(outputs[name], layer)[image, channels].flatten(1).max(1)
        (gradient,) = torch.autograd.grad(activation.sum(), leaf, retain_graph=True, materialize_grads=True)
        energy = gradient[image].float().square().sum(1).cpu()
        for number, pixels, index in zip(turn, energy, flat.tolist(), strict=True):
            peak = layer.location(layer.prefix_tokens + index)
            heights[number] = _height(layer.receptive_field, peak, pixels)
    return heights


def _turns(samples: Sequence[UnitSample]) -> Iterator[tuple[str, list[int]]]:
    """Yield numbers of samples of one layer that are of different pictures, until all are told."""
    left: dict[str, dict[int, list[int]]] = {}
    for number, sample in enumerate(samples):
        left.setdefault(sample.layer, {}).setdefault(sample.picture, []).append(number)
    for layer, by_picture in left.items():
        for turn in zip_longest(*by_picture.values()):
            yield layer, [number for number in turn if number is not None]


def _drawn_channels(layer: LayerSpec, seed: int, count: int) -> list[int]:
    """Draw one unit for each picture; the layer's name is part of the seed, so that other layers change nothing."""
    generator = np.random.default_rng([seed, *layer.name.encode()])
    channels: list[int] = generator.integers(layer.units, size=count).tolist()
    return channels


def _height(field: ReceptiveField, peak: Location, energy: Float[Tensor, "row col"]) -> int | None:
    """Return the least height of an effective box around a peak that holds the share of the energy."""
    if not 0 < float(energy.sum()) < math.inf:
        return None
    aspect = field.size or field.input
    row, col = field.centre_at(peak)
    tall, wide = _least_sides(row, field.input.height), _least_sides(col, field.input.width)
    needed = torch.maximum(tall[:, None], -(-wide * aspect.height // aspect.width))
    within = torch.bincount(needed.flatten(), energy.flatten().double()).cumsum(0)
    return int((within < ENERGY_SHARE * within[-1]).sum())


def _least_sides(centre: int, length: int) -> Int64[Tensor, " pixel"]:
    """Return for each pixel the least side of an effective box, moved into the input, that holds it."""
    pixel, side = torch.arange(length)[:, None], torch.arange(1, length + 1)
    start = torch.minimum((centre - side // 2).clamp(min=0), length - side)
    return 1 + ((pixel < start) | (pixel >= start + side)).sum(1)
