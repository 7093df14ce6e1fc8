"""Dependencies say on which input rows and columns each value of a tensor depends.

Beside a tensor stands its dependency: ten numbers per element, held as a tensor of the same shape behind a leading
axis of planes. Bounds are signed so that a hull is a maximum:

    0–3   −top, bottom, −left, right of the input pixels that can change the element; −inf where there are none
    4–7   the same as if padding were more picture: the unclipped box
    8, 9  rows and columns of input between neighbouring elements; 0 where there are none

A dependency has stride 0 along axes on which it does not vary (all channels behind a convolution), so most rules
touch one channel.
"""

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Dependency = Float[Tensor, "plane ..."]
"""Ten planes of numbers in the shape of the tensor that they stand beside."""
Taps = Int64[Tensor, "position tap"]
"""Positions on the input's axis that each position on the output's axis reads; beyond the axis lies padding."""

PLANES = 10
"""Number of planes of a dependency."""
CLIPPED, UNCLIPPED, JUMPS = slice(0, 4), slice(4, 8), slice(8, 10)
"""Planes of the box inside the input, of the unclipped box, and of the steps between elements."""


def nothing(shape: Sequence[int]) -> Dependency:
    """Return the dependency of a constant of this shape."""
    dependency = torch.full((PLANES, *[1] * len(shape)), -torch.inf)
    dependency[JUMPS] = 0
    return dependency.expand(PLANES, *shape)


def own_pixels(shape: Sequence[int]) -> Dependency:
    """Return the dependency of the network's input (image, channel, row, col): each element depends on its pixel."""
    dependency = torch.ones(PLANES, 1, 1, *shape[2:])
    row, col = torch.arange(shape[2])[:, None], torch.arange(shape[3])
    for plane in (0, 4):
        dependency[plane], dependency[plane + 1] = -row, row + 1
        dependency[plane + 2], dependency[plane + 3] = -col, col + 1
    return dependency.expand(PLANES, *shape)


def thin(dependency: Dependency, keep: int = 0) -> Dependency:
    """Return the dependency with length 1 along every axis on which it does not vary, but for the axis `keep`."""
    keep %= dependency.dim()
    for axis in range(1, dependency.dim()):
        if axis != keep and dependency.stride(axis) == 0 and dependency.shape[axis]:
            dependency = dependency.narrow(axis, 0, 1)
    return dependency


def spread(dependency: Dependency, shape: Sequence[int]) -> Dependency:
    """Return the dependency broadcast to a tensor's shape."""
    missing = len(shape) + 1 - dependency.dim()
    return dependency.reshape(PLANES, *[1] * missing, *dependency.shape[1:]).expand(PLANES, *shape)


def thinned(dependency: Dependency) -> Dependency:
    """Return the dependency with stride 0 along every axis on which its numbers do not differ."""
    shape = dependency.shape
    for axis in range(1, dependency.dim() if dependency.numel() else 0):
        first = dependency.narrow(axis, 0, 1)
        if torch.equal(first.expand_as(dependency), dependency):
            dependency = first
    return dependency.expand(shape)


def union(dependencies: Iterable[Dependency], shape: Sequence[int]) -> Dependency:
    """Return the hull of several dependencies that broadcast to one shape."""
    thinned = [
        thin(spread(dependency, [*[1] * (len(shape) + 1 - dependency.dim()), *dependency.shape[1:]]))
        for dependency in dependencies
    ]
    return spread(reduce(torch.maximum, thinned), shape)


def hull(dependency: Dependency, axes: Iterable[int] | None = None) -> Dependency:
    """Return the hull along a tensor's axes (default: all), which then have length 1."""
    rank = dependency.dim() - 1
    along = sorted({axis % rank for axis in (range(rank) if axes is None else axes)} if rank else [])
    shape = [1 if axis in along else length for axis, length in enumerate(dependency.shape[1:])]
    if not dependency.numel():
        return nothing(shape)
    if not along:
        return dependency
    return spread(thin(dependency).amax([axis + 1 for axis in along], keepdim=True), shape)


def whole(dependency: Dependency) -> Float[Tensor, " plane"]:
    """Return the hull of all elements, ten numbers."""
    return hull(dependency).reshape(PLANES)


def windows(dependency: Dependency, axis: int, taps: Taps, stride: float | int = 1.0) -> Dependency:
    """Return the hull over each position's taps along an axis counted from the end: −2 are rows, −1 columns.

    Padding depends on nothing; its unclipped box goes on from the edge in steps of the jump, and is lost (+inf)
    where the positions are not in such steps.
    """
    shape = list(dependency.shape[1:])
    last, source, merged = shape[axis] - 1, thin(dependency, keep=axis), None
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
        merged = picked if merged is None else torch.maximum(merged, picked)
    assert merged is not None
    if axis in (-2, -1):
        merged[axis] *= stride
    shape[axis] = len(taps)
    return spread(merged, shape)


def _continue_steps(source: Dependency, picked: Dependency, axis: int, distance: Int64[Tensor, "position ..."]) -> None:
    """Move the unclipped boxes of `picked` that lie in padding on from the edge, `distance` steps of the jump."""
    first, jump = 8 + 2 * axis, picked[axis]
    picked[first] -= distance * jump
    picked[first + 1] += distance * jump
    steps, jumps = source[first : first + 2].diff(dim=axis), source[axis].narrow(axis, 0, 1)
    even = torch.stack([steps[0] == -jumps, steps[1] == jumps]) | steps.isnan()
    if not bool(even.all()):
        picked[first : first + 2].masked_fill_(distance != 0, torch.inf)


def range_taps(lower: Int64[Tensor, " position"], upper: Int64[Tensor, " position"]) -> Taps:
    """Return every position from `lower` to `upper` as taps; shorter ranges repeat their last."""
    count = int((upper - lower).max().clamp(min=0)) + 1
    return torch.minimum(lower[:, None] + torch.arange(count), upper[:, None])
