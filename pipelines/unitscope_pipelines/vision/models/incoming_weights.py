"""Incoming weights: those with which a layer's units read their inputs."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import nn

from unitscope_pipelines.vision.recording.recording import split_call
from unitscope_schemas.errors import UsageError, listing
from unitscope_schemas.units import LayerSpec

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Modules whose weight has a row for each unit."""


def incoming_weights(model: nn.Module, layer: LayerSpec) -> Float[NDArray[np.float32], "unit weight"]:
    """Return one row of weights per unit, without the bias: unit × (channel × row × col).

    A grouped convolution has its kernels as rows, whatever channels each reads. Raises UsageError for a layer that has
    no weights of its own, such as a block, and names those within it that have.
    """
    modules = dict(model.named_modules())
    path = split_call(layer.name, modules).path
    module = modules[path]
    if not isinstance(module, _WEIGHTED):
        inner = [name for name, child in module.named_modules(prefix=path) if isinstance(child, _WEIGHTED)]
        there = f"; index one of those within it: {listing(inner)}" if inner else ""
        raise UsageError(
            f"layer {layer.name!r} ({type(module).__name__}) has no incoming weights of its own, one row per unit"
            f"{there}; or ask by coactivation or by exemplars"
        )
    rows: NDArray[np.float32] = module.weight.detach().flatten(1).float().cpu().numpy()
    return rows
