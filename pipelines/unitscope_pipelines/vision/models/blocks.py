"""Blocks of networks: the layers that are recorded unless others are named."""

import re
from collections.abc import Mapping, Sequence

from torch import nn
from torch.nn.parameter import is_lazy

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
    ("encoder.layers.*.blocks.*",),
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

_OTHERS = (
    ("stages.*.layers.*",),
    ("block.*.*",),
    ("layer.*",),
    ("layers.*",),
    ("h.*",),
)
"""Globs of places where Transformers and others keep blocks; plain names, so they come last."""

_TRUNK_SHARE = 0.5
"""Share of a network's weights that must lie in what is taken for its blocks because of plain names."""


def torchvision_blocks(name: str, module: nn.Module) -> tuple[str, ...]:
    """Return the paths of the blocks of torchvision's network of that name; none if it has none."""
    return next((_paths(module, globs) for pattern, globs in _TORCHVISION if re.match(pattern, name)), ())


def usual_blocks(module: nn.Module) -> tuple[str, ...]:
    """Return the paths of a network's blocks that lie at a usual place, or that it lists as stages, as timm does.

    If there are none, they are looked for under every path without a number, as of a network that is wrapped; those are
    taken that hold the most weights, if it is half of the network's. A network with none of these has no blocks.
    """
    found = _blocks_in(module, _USUAL) or _paths(module, [str(stage["module"]) for stage in _stages(module)])
    if found:
        return found
    most, total = 0, _weight_count(module)
    for prefix, inner in module.named_modules():
        if any(part.isdecimal() for part in prefix.split(".")):
            continue
        paths = _blocks_in(inner, (_OTHERS[0], *_USUAL, *_OTHERS[1:]))
        weights = sum(_weight_count(inner.get_submodule(path)) for path in paths)
        if weights > max(most, _TRUNK_SHARE * total):
            most, found = weights, tuple(f"{prefix}.{path}" if prefix else path for path in paths)
    return found


def _stages(module: nn.Module) -> Sequence[Mapping[str, object]]:
    stages: Sequence[Mapping[str, object]] = getattr(module, "feature_info", ())
    return stages


def _blocks_in(module: nn.Module, rows: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the paths of the first row of globs of which all are there."""
    return next((_paths(module, row) for row in rows if all(_paths(module, [glob]) for glob in row)), ())


def _weight_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter))


def _paths(module: nn.Module, globs: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of modules that match and are made of others, unlike norms, activations and poolings."""
    return tuple(
        path
        for path, inner in module.named_modules()
        if any(inner.children()) and not isinstance(inner, nn.ModuleList) and any(matches(path, glob) for glob in globs)
    )
