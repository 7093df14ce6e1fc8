"""How windows reach back to the input: convolutions, pooling, interpolation, padding."""

from collections.abc import Sequence
from typing import Any

import torch

from unitscope_pipelines.vision.receptive_fields.dependency import PLANES, Reach, hull, range_taps, windows
from unitscope_pipelines.vision.receptive_fields.operation import Call, Rule


def _each(values: Any, rank: int) -> list[Any]:
    """One value per axis: a single one stands for all."""
    listed = list(values) if isinstance(values, list | tuple) else [values]
    return listed * rank if len(listed) == 1 else listed


def slid(
    call: Call, reach: Reach, kernel: Sequence[int], stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> Reach:
    """A sliding window over the last axes; the real output tells how often it fits (ceil mode)."""
    rank = len(kernel)
    steps = zip(kernel, _each(stride, rank), _each(padding, rank), _each(dilation, rank), strict=True)
    for axis, (width, step, before, spacing) in enumerate(steps, start=-rank):
        starts = torch.arange(call.shape[axis]) * step - before
        reach = windows(reach, axis, starts[:, None] + torch.arange(width) * spacing, step)
    return reach


def spaced(call: Call, reach: Reach, kernel: Sequence[int]) -> Reach:
    """A transposed window: the places whose stamp covers an output."""
    rank = len(kernel)
    for axis, width in enumerate(kernel, start=-rank):
        step, before, spacing = (_each(call[name], rank)[axis] for name in ("stride", "padding", "dilation"))
        place = torch.arange(call.shape[axis]) + before
        lower = -((spacing * (width - 1) - place).div(step, rounding_mode="floor"))
        reach = windows(reach, axis, range_taps(lower, place // step), 1 / step)
    return reach


def convolution(call: Call) -> Reach:
    reach, groups, kernel = call.reach("input"), call["groups"], call["weight"].shape[2:]
    batch, channels, *places = reach.shape[1:]
    grouped = hull(reach.reshape(PLANES, batch, groups, channels // groups, *places), [2]).squeeze(3)
    if call["transposed"]:
        grouped = spaced(call, grouped, kernel)
    else:
        grouped = slid(call, grouped, kernel, call["stride"], call["padding"], call["dilation"])
    per_group = call.shape[1] // groups
    spread_out = grouped.unsqueeze(3).expand(PLANES, batch, groups, per_group, *call.shape[2:])
    return spread_out.reshape(PLANES, *call.shape)


def pooled(call: Call) -> Reach:
    rank = int(call.function._schema.name.split("pool")[1][0])
    kernel = _each(call["kernel_size"], rank)
    return slid(call, call.reach("self"), kernel, call["stride"] or kernel, call["padding"], call.get("dilation", 1))


def binned(call: Call) -> Reach:
    """Adaptive pooling: place p of n sees floor(p · length / n) to ceil((p + 1) · length / n)."""
    reach = call.reach("self")
    for axis in range(-len(_each(call["output_size"], 1)), 0):
        count, length = call.shape[axis], reach.shape[axis]
        place = torch.arange(count)
        taps = range_taps(place * length // count, -(-(place + 1) * length // count) - 1)
        reach = windows(reach, axis, taps, length / count)
    return reach


def interpolated(radius: int) -> Rule:
    """Linear (radius 1) or cubic (2) interpolation: all places within the kernel's support."""

    def rule(call: Call) -> Reach:
        reach, rank = call.reach("self"), len(call["output_size"])
        for axis in range(-rank, 0):
            count, length = call.shape[axis], reach.shape[axis]
            aligned = call["align_corners"] and count > 1
            given = call.get({1: "scales", -2: "scales_h", -1: "scales_w"}[1 if rank == 1 else axis])
            scale = (length - 1) / (count - 1) if aligned else 1 / given if given else length / count
            place = torch.arange(count, dtype=torch.float64)
            centre = (place * scale if aligned else (place + 0.5) * scale - 0.5).clamp(min=0)
            support = radius * max(1.0, scale) if call.function._schema.name.endswith("_aa") else radius
            # kernels compute the centre in float32: half a hundredth of a pixel is far beyond its error
            lower = (centre - support + 1 - 0.005).floor().long().clamp(0, length - 1)
            upper = (centre + support + 0.005).floor().long().clamp(0, length - 1)
            reach = windows(reach, axis, range_taps(lower, upper), scale)
        return reach

    return rule


def padded(call: Call) -> Reach:
    reach, pads = call.reach("self"), call.get("pad", call.get("padding"))
    for axis, before in enumerate(pads[::2], start=1):
        reach = windows(reach, -axis, (torch.arange(call.shape[-axis]) - before)[:, None])
    return reach
