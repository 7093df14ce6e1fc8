"""Reaches: the input rows and columns that each value of a tensor depends on.

Beside a tensor stands its reach: ten numbers per element, held as a tensor of the same shape behind a leading axis
of planes. Bounds are signed so that a hull is a maximum:

    0–3   −top, bottom, −left, right of the input pixels that can change the element; −inf where there are none
    4–7   the same as if padding were more picture: the unclipped box
    8, 9  rows and columns of input between neighbouring elements; 0 where there are none

A reach has stride 0 along axes on which it does not vary (all channels behind a convolution), so most rules touch
one channel.
"""

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Reach = Float[Tensor, "plane ..."]
Taps = Int64[Tensor, "place tap"]
"""For each place of an output axis the places of the input axis that it reads; beyond the axis lies padding."""

PLANES = 10
CLIPPED, UNCLIPPED, JUMPS = slice(0, 4), slice(4, 8), slice(8, 10)


def nothing(shape: Sequence[int]) -> Reach:
    """The reach of a constant."""
    reach = torch.full((PLANES, *[1] * len(shape)), -torch.inf)
    reach[JUMPS] = 0
    return reach.expand(PLANES, *shape)


def picture(shape: Sequence[int]) -> Reach:
    """The reach of the network's input (image, channel, row, col): every element sees its own pixel."""
    reach = torch.ones(PLANES, 1, 1, *shape[2:])
    row, col = torch.arange(shape[2])[:, None], torch.arange(shape[3])
    for plane in (0, 4):
        reach[plane], reach[plane + 1], reach[plane + 2], reach[plane + 3] = -row, row + 1, -col, col + 1
    return reach.expand(PLANES, *shape)


def thin(reach: Reach, keep: int = 0) -> Reach:
    """The reach with length 1 along every axis on which it does not vary, but for the axis `keep`."""
    keep %= reach.dim()
    for axis in range(1, reach.dim()):
        if axis != keep and reach.stride(axis) == 0:
            reach = reach.narrow(axis, 0, 1)
    return reach


def spread(reach: Reach, shape: Sequence[int]) -> Reach:
    """The reach broadcast to a tensor's shape."""
    missing = len(shape) + 1 - reach.dim()
    return reach.reshape(PLANES, *[1] * missing, *reach.shape[1:]).expand(PLANES, *shape)


def union(reaches: Iterable[Reach], shape: Sequence[int]) -> Reach:
    """The hull of several reaches that broadcast to one shape."""
    thinned = [thin(spread(reach, [*[1] * (len(shape) + 1 - reach.dim()), *reach.shape[1:]])) for reach in reaches]
    return spread(reduce(torch.maximum, thinned), shape)


def hull(reach: Reach, axes: Iterable[int] | None = None) -> Reach:
    """The hull along a tensor's axes (default: all), which then have length 1."""
    rank = reach.dim() - 1
    along = sorted({axis % rank for axis in (range(rank) if axes is None else axes)} if rank else [])
    shape = [1 if axis in along else length for axis, length in enumerate(reach.shape[1:])]
    if not reach.numel():
        return nothing(shape)
    return spread(thin(reach).amax([axis + 1 for axis in along], keepdim=True), shape) if along else reach


def windows(reach: Reach, axis: int, taps: Taps, stride: float | int = 1.0) -> Reach:
    """The hull over each place's taps along an axis counted from the end: −2 are rows, −1 columns.

    Padding depends on nothing; its unclipped place goes on from the edge in steps of the jump, and is lost (+inf)
    where the places are not in such steps.
    """
    shape = list(reach.shape[1:])
    last, source, found = shape[axis] - 1, thin(reach, keep=axis), None
    for tap in taps.unbind(1):
        inside = tap.clamp(0, last)
        picked = source.index_select(axis, inside)
        if bool((tap != inside).any()):
            distance = (tap - inside).reshape(-1, *[1] * (-axis - 1))
            picked[CLIPPED].masked_fill_(distance != 0, -torch.inf)
            if axis in (-2, -1):
                _continue_steps(source, picked, axis, distance)
            else:
                picked[UNCLIPPED].masked_fill_(distance != 0, -torch.inf)
        found = picked if found is None else torch.maximum(found, picked)
    assert found is not None
    if axis in (-2, -1):
        found[axis] *= stride
    shape[axis] = len(taps)
    return spread(found, shape)


def _continue_steps(source: Reach, picked: Reach, axis: int, distance: Int64[Tensor, "place ..."]) -> None:
    first, jump = 8 + 2 * axis, picked[axis]
    picked[first] -= distance * jump
    picked[first + 1] += distance * jump
    steps, jumps = source[first : first + 2].diff(dim=axis), source[axis].narrow(axis, 0, 1)
    even = torch.stack([steps[0] == -jumps, steps[1] == jumps]) | steps.isnan()
    if not bool(even.all()):
        picked[first : first + 2].masked_fill_(distance != 0, torch.inf)


def range_taps(lower: Int64[Tensor, " place"], upper: Int64[Tensor, " place"]) -> Taps:
    """Every place from `lower` to `upper`; shorter ranges repeat their last."""
    count = int((upper - lower).max().clamp(min=0)) + 1
    return torch.minimum(lower[:, None] + torch.arange(count), upper[:, None])
