"""Peaks: each unit's maximum over all locations of an image, with its first location."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from unitscope_schemas.errors import ModelError
from unitscope_schemas.units import LayerSpec

Maps = Float[Tensor, "image channel row col"]


class Peaks(NamedTuple):
    """Peaks of a layer's units on a batch of images; a NaN anywhere in a map makes its maximum NaN."""

    activation: Float[Tensor, "image unit"]
    """Maxima over all locations."""
    location: Int64[Tensor, "image unit"]
    """Flat indices of the locations in row order, class and register tokens first."""


def arranged(output: Float[Tensor, "..."], layer: LayerSpec) -> Float[Tensor, "image ..."]:
    """Return a layer's output as a map (image, channel, row, col), tokens (image, token, channel) or a vector.

    Class and register tokens come first, then those of the grid in row order, whatever order the output has.
    """
    layout = layer.layout
    if layout is None:
        return output.permute(0, 3, 1, 2) if layer.channels_last else output
    values = output.movedim(layout.image_axis, 0)
    if layout.windows > 1 and layout.images_inside:
        values = values.reshape(layout.windows, -1, *values.shape[1:]).transpose(0, 1)
    elif layout.windows > 1:
        values = values.reshape(-1, layout.windows, *values.shape[1:])
    if layer.kind == "vector":
        return values
    tokens = values.movedim(layout.channel_axis, -1).flatten(1, -2)
    if layout.order:
        tokens = tokens[:, list(layout.order)]
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *layer.grid) if layer.kind == "map" else tokens


def channel_axis(layer: LayerSpec) -> int:
    """Return the axis of the channels in a layer's output as it is.

    Raises ModelError where images and channels share one.
    """
    if layer.layout is None:
        return 1 if layer.kind == "map" and not layer.channels_last else -1
    windowed = layer.layout.windows > 1
    axis = layer.layout.channel_axis - windowed
    if axis == 0:
        raise ModelError(f"images and channels of {layer.name} lie on one axis; choose another layer")
    return axis - 1 if axis <= layer.layout.image_axis else axis


def peaks(output: Float[Tensor, "image ..."], layer: str = "layer") -> Peaks:
    """Return the peaks of maps (image, channel, row, col), vectors (image, channel) or tokens (image, token, channel).

    Ties go to the first location. On a CPU the pooling kernel finds maximum and location in one pass over channels-last
    maps, which a token matrix is already; on a GPU, where it goes through each map serially, a reduction does.
    """
    if output.dim() == 2:
        return Peaks(output.float(), torch.zeros_like(output, dtype=torch.int64))
    if output.dim() == 3:
        output = output.transpose(1, 2).unsqueeze(-1)
    if output.dim() != 4:
        raise ModelError(f"{layer} puts out {output.dim()} dimensions; maps have 4, tokens 3, vectors 2")
    return reduced(output) if output.is_cuda else pooled(output)


def pooled(maps: Maps) -> Peaks:
    """Return maxima and first locations of maps by the pooling kernel."""
    activation, location = F.max_pool2d(maps, maps.shape[2:], return_indices=True)
    return Peaks(activation.flatten(1).float(), location.flatten(1))


def reduced(maps: Maps) -> Peaks:
    """Return the same as `pooled` by a reduction over the locations, without moving the values of either layout."""
    if maps.is_contiguous():
        activation, location = maps.flatten(2).max(2)
    else:
        activation, location = maps.permute(0, 2, 3, 1).flatten(1, 2).max(1)
    return Peaks(activation.float(), location)
