"""Rules of windows: how convolutions, pooling, interpolation and padding depend on the input."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from unitscope_pipelines.vision.receptive_fields.dependency import JUMPS, PLANES, Dependency, hull, range_taps, windows
from unitscope_pipelines.vision.receptive_fields.operation import Operation


class Window(NamedTuple):
    """A window that slides along one axis."""

    width: int
    """Number of positions that it reads."""
    step: int
    """Positions between one window and the next."""
    padding: int
    """Positions of padding before the first."""
    spacing: int
    """Positions between the ones that it reads (dilation)."""


def convolution(operation: Operation, dependency: Dependency) -> Dependency:
    """Return what a convolution, plain or transposed, in groups or not, makes of its input's dependency."""
    groups, kernel = operation.integer("groups"), list(operation.tensor("weight").shape[2:])
    batch, channels, *lengths = dependency.shape[1:]
    grouped = hull(dependency.reshape(PLANES, batch, groups, channels // groups, *lengths), [2]).squeeze(3)
    slide = _stamped if operation.flag("transposed") else _slid
    grouped = slide(operation, grouped, _sliding(operation, kernel))
    per_group = operation.shape[1] // groups
    spread_out = grouped.unsqueeze(3).expand(PLANES, batch, groups, per_group, *operation.shape[2:])
    return spread_out.reshape(PLANES, *operation.shape)


def pooled(operation: Operation, dependency: Dependency) -> Dependency:
    """Return what maximum or average pooling makes of its input's dependency."""
    rank = int(operation.name.split("pool")[1][0])
    return _slid(operation, dependency, _sliding(operation, operation.integers("kernel_size", rank)))


def binned(operation: Operation, dependency: Dependency) -> Dependency:
    """Return what adaptive pooling makes of its input's dependency.

    Position p of n reads from floor(p · length / n) to ceil((p + 1) · length / n).
    """
    for axis in range(-len(operation.integers("output_size")), 0):
        count, length = operation.shape[axis], dependency.shape[axis]
        position = torch.arange(count)
        taps = range_taps(position * length // count, -(-(position + 1) * length // count) - 1)
        dependency = windows(dependency, axis, taps, length / count)
    return dependency


def interpolated(operation: Operation, dependency: Dependency, radius: int) -> Dependency:
    """Return what linear (radius 1) or cubic (2) interpolation makes of its input's dependency.

    A position reads all positions within the kernel's support.
    """
    rank = len(operation.integers("output_size"))
    for axis in range(-rank, 0):
        count, length = operation.shape[axis], dependency.shape[axis]
        aligned = operation.flag("align_corners") and count > 1
        factor = operation.arguments.get({1: "scales", -2: "scales_h", -1: "scales_w"}[1 if rank == 1 else axis])
        unaligned = 1 / factor if isinstance(factor, int | float) and factor else length / count
        scale = (length - 1) / (count - 1) if aligned else unaligned
        position = torch.arange(count, dtype=torch.float64)
        centre = (position * scale if aligned else (position + 0.5) * scale - 0.5).clamp(min=0)
        support = radius * max(1.0, scale) if operation.name.endswith("_aa") else radius
        # kernels compute the centre in float32: half a hundredth of a pixel is far beyond its error
        lower = (centre - support + 1 - 0.005).floor().long().clamp(0, length - 1)
        upper = (centre + support + 0.005).floor().long().clamp(0, length - 1)
        dependency = windows(dependency, axis, range_taps(lower, upper), scale)
    return dependency


def padded(operation: Operation, dependency: Dependency) -> Dependency:
    """Return what padding makes of its input's dependency, as if it were filled with a constant."""
    pads = operation.integers("pad" if "pad" in operation.arguments else "padding")
    for axis, before in enumerate(pads[::2], start=1):
        taps = (torch.arange(operation.shape[-axis]) - before)[:, None]
        dependency = windows(dependency, -axis, taps)
    return dependency


def _sliding(operation: Operation, kernel: Sequence[int]) -> list[Window]:
    """Return the operation's window along each of its last axes; the step of pooling is by default its kernel."""
    rank = len(kernel)
    steps = operation.integers("stride", rank) or kernel
    spacings = operation.integers("dilation", rank) if "dilation" in operation.arguments else [1] * rank
    return list(map(Window, kernel, steps, operation.integers("padding", rank), spacings))


def _slid(operation: Operation, dependency: Dependency, sliding: Sequence[Window]) -> Dependency:
    """Slide windows over the last axes; the real output tells how often they fit (ceil mode)."""
    for axis, window in enumerate(sliding, start=-len(sliding)):
        starts = torch.arange(operation.shape[axis]) * window.step - window.padding
        taps = starts[:, None] + torch.arange(window.width) * window.spacing
        dependency = windows(dependency, axis, taps, window.step)
    return dependency


def _stamped(operation: Operation, dependency: Dependency, sliding: Sequence[Window]) -> Dependency:
    """Slide transposed windows over the last axes: an output reads the positions whose stamp covers it.

    Outputs between the points of a dilated stamp, or behind the last stamp, read nothing: they are the bias.
    """
    for axis, window in enumerate(sliding, start=-len(sliding)):
        position = torch.arange(operation.shape[axis])[:, None] + window.padding
        offset = position - window.spacing * torch.arange(window.width)
        hit = offset % window.step == 0
        taps = offset.div(window.step, rounding_mode="floor")
        any_hit = hit.any(1)
        first = taps.gather(1, hit.int().argmax(1, keepdim=True))
        taps = torch.where(hit, taps, first).where(any_hit[:, None], 0)
        dependency = windows(dependency, axis, taps, 1 / window.step)
        if not bool(any_hit.all()):
            missed = (~any_hit).reshape(-1, *[1] * (-axis - 1))
            bounds = dependency[: JUMPS.start].masked_fill(missed, -torch.inf)
            dependency = torch.cat([bounds, dependency[JUMPS].expand(-1, *bounds.shape[1:])])
    return dependency
