"""Filters: a layer's weights as pictures of what its units answer to, where the input is pixels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from unitscope_pipelines.vision.images.diverging import FAINT_SHARE, PAPER, DivergingPicture, diverging_picture
from unitscope_schemas.errors import ModelError, UsageError, listing

FIRST = "first"
"""Name that stands for the first layer with weights that a forward calls."""


@dataclass(frozen=True)
class ConvFilters:
    """The filters of a layer, one for each unit: its weights by input channel."""

    layer: str
    """Module path of the layer."""
    weights: Float[NDArray[np.float32], "unit channel row col"]

    @property
    def largest(self) -> float:
        """Largest magnitude of the layer's finite weights."""
        return float(np.nanmax(np.where(np.isfinite(self.weights), np.abs(self.weights), 0), initial=0))

    def picture(self, channel: int) -> DivergingPicture:
        """Draw one filter in its own scale, which is at least `FAINT_SHARE` of the layer's largest weight."""
        return filter_picture(self.weights[channel], FAINT_SHARE * self.largest)


def read_filters(model: nn.Module, input_shape: tuple[int, int, int], layer: str = FIRST) -> ConvFilters:
    """Return the filters of a convolution (a patch embedding is one), or of a linear layer that takes all pixels.

    Raises UsageError that names the layers with filters for a layer that has none.
    """
    modules = dict(model.named_modules())
    path = _first(model, input_shape) if layer == FIRST else layer
    module = modules.get(path)
    if isinstance(module, nn.Conv2d):
        weights = module.weight
    elif isinstance(module, nn.Linear) and module.in_features == math.prod(input_shape):
        weights = module.weight.view(-1, *input_shape)
    else:
        known = listing(name for name, other in modules.items() if isinstance(other, nn.Conv2d))
        raise UsageError(f"layer {path!r} has no filters that pictures can show; these have: {known}")
    return ConvFilters(path, weights.detach().float().cpu().contiguous().numpy())


def filter_picture(
    weights: Float[NDArray[np.float32], "channel row col"], least_scale: float = 0.0
) -> DivergingPicture:
    """Draw a filter of one or three channels as one picture, others as one grey picture per channel in row order.

    The pictures of one filter have one scale, and lie one white pixel apart.
    """
    if len(weights) in (1, 3):
        return diverging_picture(weights, least_scale=least_scale)
    columns = math.ceil(math.sqrt(len(weights)))
    height, width = weights.shape[1:]
    lines = -(-len(weights) // columns)
    shown = diverging_picture(weights.reshape(1, -1, width), least_scale=least_scale)
    sheet = Image.new("L", (columns * (width + 1) - 1, lines * (height + 1) - 1), PAPER)
    for channel in range(len(weights)):
        row, col = divmod(channel, columns)
        part = shown.picture.crop((0, channel * height, width, (channel + 1) * height))
        sheet.paste(part, (col * (width + 1), row * (height + 1)))
    return DivergingPicture(sheet, shown.scale)


class _FirstCall(BaseException):
    """Ends a forward at the first layer with weights, whose path it carries."""


def _first(model: nn.Module, input_shape: tuple[int, int, int]) -> str:
    """Return the path of the first layer with weights that a forward calls."""

    def stop(path: str) -> Callable[[nn.Module, object], None]:
        def hook(_module: nn.Module, _inputs: object) -> None:
            raise _FirstCall(path)

        return hook

    weighted = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [module.register_forward_pre_hook(stop(path)) for path, module in weighted]
    try:
        with torch.no_grad():
            model(torch.zeros(1, *input_shape))
    except _FirstCall as call:
        return str(call)
    finally:
        for handle in handles:
            handle.remove()
    raise ModelError("no convolution or linear layer is called in a forward, so there are no filters to show")
