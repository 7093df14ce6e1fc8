"""The axes of an output are found here: rows and columns, tokens or channels, by where its elements lie."""

from collections.abc import Sequence

import torch

from unitscope_pipelines.vision.receptive_fields.dependency import Dependency, thin
from unitscope_pipelines.vision.receptive_fields.origin import Origin, is_placed
from unitscope_pipelines.vision.receptive_fields.places import HORIZONTAL, VERTICAL

Grid = tuple[int, int]
"""Rows and columns of a convolution's output."""


def sure_rows_and_cols(dependency: Dependency) -> Grid | None:
    """Return the two axes of a tensor (image, …, …, …) along which its elements move down only, and right only.

    None if there are no such axes.
    """
    for row, col in ((2, 3), (1, 2)):
        if _moves(dependency, row, VERTICAL, HORIZONTAL) and _moves(dependency, col, HORIZONTAL, VERTICAL):
            return row, col
    return None


def rows_and_cols(origin: Origin, conv_grids: Sequence[Grid]) -> Grid | None:
    """Return (2, 3) if an output is (image, channel, row, col), (1, 2) if its channels are last, None if it is no map.

    Attention's (image, head, token, channel) is none: down and to the right lie along one axis. Where all elements
    lie at the same place, axes whose lengths a convolution had, or divided evenly, are rows and columns.
    """
    sure = sure_rows_and_cols(origin)
    if sure or is_placed(origin):
        return sure
    lengths = tuple(origin.shape[1:])
    return next((axes for axes in ((2, 3), (1, 2)) if _divides((lengths[axes[0]], lengths[axes[1]]), conv_grids)), None)


def channel_axis(origin: Origin) -> int | None:
    """Return the axis of a tensor (image, …) along which its elements stay where they are, while they move along all
    others; None if there is no such axis, or more than one.

    Axes of length 1 do not count. Where all elements lie at the same place, or have none, the last of (image, token,
    channel) has the channels.
    """
    shape = origin.shape[1:]
    if not is_placed(origin):
        return 2 if len(shape) == 3 else None
    still = [axis for axis in range(1, len(shape)) if shape[axis] > 1 and not _varies(origin, axis)]
    if not still:
        still = [axis for axis in range(1, len(shape)) if shape[axis] == 1][-1:]
    return still[0] if len(still) == 1 else None


def _moves(dependency: Dependency, axis: int, along: list[int], across: list[int]) -> bool:
    """Return whether elements move along an axis in one direction only; an axis of length 1 does."""
    if dependency.shape[axis + 1] == 1:
        return True
    return _varies(dependency, axis, along) and not _varies(dependency, axis, across)


def _varies(dependency: Dependency, axis: int, planes: Sequence[int] = (*VERTICAL, *HORIZONTAL)) -> bool:
    """Return whether some bounds differ along an axis; elements that depend on no pixel, such as padding, have none."""
    bounds = thin(dependency)[list(planes)]
    if not bounds.numel():
        return False
    largest = bounds.amax(axis + 1, keepdim=True)
    return bool(((bounds != largest) & (bounds != -torch.inf)).any())


def _divides(lengths: Grid, conv_grids: Sequence[Grid]) -> bool:
    """Return whether the lengths are those of a convolution's grid, divided by one whole number and rounded up."""
    return any(
        (-(-height // factor), -(-width // factor)) == lengths
        for height, width in conv_grids
        for factor in range(1, max(height, width) + 1)
    )
