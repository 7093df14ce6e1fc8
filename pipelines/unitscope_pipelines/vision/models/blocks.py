"""Blocks of networks: the layers that are recorded unless others are named."""

import re
from collections.abc import Sequence

from torch import nn

from unitscope_pipelines.vision.models.globs import matches

_TORCHVISION = (
    (r"(resnet|resnext|wide_resnet)", ("layer*.*",)),
    (r"regnet", ("trunk_output.*.*",)),
    (r"densenet", ("features.denseblock*",)),
    (r"mobilenet", ("features.*",)),
    (r"efficientnet", ("features.*.*",)),
    (r"(convnext|swin)", ("features.[1357].*",)),
    (r"maxvit", ("blocks.*.layers.*",)),
    (r"shufflenet", ("stage*.*",)),
    (r"squeezenet", ("features.*",)),
    (r"mnasnet", ("layers.*.*",)),
    (r"googlenet", ("inception*",)),
    (r"inception", ("Mixed_*",)),
    (r"vit", ("encoder.layers.*",)),
)
"""Globs of blocks by the beginning of torchvision's names; AlexNet and VGG have no blocks."""

_USUAL = (
    ("layers.*.blocks.*",),
    ("stages.*.blocks.*",),
    ("layer1.*", "stage[2-4].*"),
    ("layer[1-4].*",),
    ("body.layer[1-4].*",),
    ("s[1-4].b*",),
    ("features.denseblock*",),
    ("serial_blocks*.*", "parallel_blocks.*"),
    ("Mixed_*",),
    ("stages.*.*",),
    ("blocks.*.[0-9]*",),
    ("blocks.*",),
    ("encoder.layers.*",),
    ("_blocks.*",),
)
"""Globs of the places where timm's networks, and many others, keep their blocks.

A network follows the first row of which it has all places.
"""


def torchvision_blocks(name: str, module: nn.Module) -> tuple[str, ...]:
    """Return the paths of the blocks of torchvision's network of that name; none if it has none."""
    return next((_paths(module, globs) for pattern, globs in _TORCHVISION if re.match(pattern, name)), ())


def usual_blocks(module: nn.Module) -> tuple[str, ...]:
    """Return the paths of a network's blocks that lie at a usual place, or that it lists as stages, as timm does.

    A network with neither has no blocks.
    """
    for globs in _USUAL:
        if all(_paths(module, [glob]) for glob in globs):
            return _paths(module, globs)
    return _paths(module, [stage["module"] for stage in getattr(module, "feature_info", ())])


def _paths(module: nn.Module, globs: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of modules that match and are made of others, unlike norms, activations and poolings."""
    return tuple(
        path
        for path, inner in module.named_modules()
        if any(inner.children()) and not isinstance(inner, nn.ModuleList) and any(matches(path, glob) for glob in globs)
    )
