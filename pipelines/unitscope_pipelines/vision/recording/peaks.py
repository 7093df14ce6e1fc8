"""Peaks: each unit's maximum over all locations of an image, with its first location."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from unitscope_schemas.errors import ModelError
from unitscope_schemas.units import LayerSpec


class Peaks(NamedTuple):
    """Peaks of a layer's units on a batch of images; a NaN anywhere in a map makes its maximum NaN."""

    activation: Float[Tensor, "image unit"]
    """Maxima over all locations."""
    location: Int64[Tensor, "image unit"]
    """Flat indices of the locations in row order, class and register tokens first."""


def channels_first(output: Float[Tensor, "image ..."], layer: LayerSpec) -> Float[Tensor, "image ..."]:
    """Return a layer's output with a map's axes as (image, channel, row, col), tokens and vectors as they are."""
    return output.permute(0, 3, 1, 2) if layer.channels_last else output


def peaks(output: Float[Tensor, "image ..."], layer: str = "layer") -> Peaks:
    """Return the peaks of maps (image, channel, row, col), vectors (image, channel) or tokens (image, token, channel).

    Ties go to the first location. The pooling kernel finds maximum and location in one pass over
    channels-last maps, which a token matrix is already.
    """
    if output.dim() == 2:
        return Peaks(output.float(), torch.zeros_like(output, dtype=torch.int64))
    if output.dim() == 3:
        output = output.transpose(1, 2).unsqueeze(-1)
    if output.dim() != 4:
        raise ModelError(f"{layer} puts out {output.dim()} dimensions; maps have 4, tokens 3, vectors 2")
    activation, location = F.max_pool2d(output, output.shape[2:], return_indices=True)
    return Peaks(activation.flatten(1).float(), location.flatten(1))
