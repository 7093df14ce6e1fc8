"""The axes of an output are found here: rows and columns, or tokens, by where its elements lie."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope_pipelines.vision.receptive_fields.dependency import Dependency, hull, thin
from unitscope_pipelines.vision.receptive_fields.origin import Origin, is_placed
from unitscope_schemas.geometry import Size

MOST_PREFIX_TOKENS = 16
"""Largest number of class and register tokens that may stand before the tokens of a grid."""

Grid = tuple[int, int]
"""Rows and columns of a convolution's output."""

_VERTICAL, _HORIZONTAL = [0, 1, 4, 5], [2, 3, 6, 7]
"""Planes of a dependency that bound rows, and those that bound columns."""


def sure_rows_and_cols(dependency: Dependency) -> Grid | None:
    """Return the two axes of a tensor (image, …, …, …) along which its elements move down only, and right only.

    None if there are no such axes.
    """
    for row, col in ((2, 3), (1, 2)):
        if _moves(dependency, row, _VERTICAL, _HORIZONTAL) and _moves(dependency, col, _HORIZONTAL, _VERTICAL):
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


def token_axis(origin: Origin) -> int | None:
    """Return the axis of a tensor (image, …, …) along which its elements move; None if all lie at the same place."""
    return next((axis for axis in (1, 2) if _varies(origin, axis)), None)


def token_grid(origin: Origin, conv_grids: Sequence[Grid]) -> Size:
    """Return the grid that the tokens of (image, token, channel) fill in row order, class and register tokens aside.

    Tokens that lie in rows and columns say so themselves; those that lie otherwise are a row. Where all lie at the
    same place, it is the last convolution's grid that they fill but for a few, or one that divides it evenly.
    """
    if not is_placed(origin):
        return _likely_grid(origin.shape[2], conv_grids)
    bounds = hull(origin, [2])[:, 0, :, 0]
    first = int(bounds[0].isfinite().int().argmax())
    return _rows_of(bounds[:, first:]) or Size(1, origin.shape[2])


def _rows_of(bounds: Float[Tensor, "plane token"]) -> Size | None:
    """Return the grid of tokens by their bounds, if they are in row order."""
    down, right = bounds[_VERTICAL], bounds[_HORIZONTAL]
    width = int((down == down[:, :1]).all(0).sum())
    if down.shape[1] % width:
        return None
    down, right = (planes.reshape(len(planes), -1, width) for planes in (down, right))
    even = torch.equal(down, down[:, :, :1].expand_as(down)) and torch.equal(right, right[:, :1].expand_as(right))
    return Size(*down.shape[1:]) if even else None


def _likely_grid(tokens: int, conv_grids: Sequence[Grid]) -> Size:
    """Return the grid of the last convolution that so many tokens fill but for a few, or that they divide evenly."""
    fitting = [grid for grid in conv_grids if 0 <= tokens - grid[0] * grid[1] <= MOST_PREFIX_TOKENS]
    if fitting:
        return Size(*fitting[-1])
    merged = [
        (rows, cols)
        for height, width in reversed(conv_grids)
        for factor in range(2, max(height, width) + 1)
        if (rows := -(-height // factor)) * (cols := -(-width // factor)) == tokens
    ]
    return Size(*merged[0]) if merged else Size(1, tokens)


def _moves(dependency: Dependency, axis: int, along: list[int], across: list[int]) -> bool:
    """Return whether elements move along an axis in one direction only; an axis of length 1 does."""
    if dependency.shape[axis + 1] == 1:
        return True
    return _varies(dependency, axis, along) and not _varies(dependency, axis, across)


def _varies(dependency: Dependency, axis: int, planes: Sequence[int] = (*_VERTICAL, *_HORIZONTAL)) -> bool:
    """Return whether some bounds differ along an axis."""
    bounds = thin(dependency)[list(planes)]
    return not torch.equal(bounds.narrow(axis + 1, 0, 1).expand_as(bounds), bounds)


def _divides(lengths: Grid, conv_grids: Sequence[Grid]) -> bool:
    """Return whether the lengths are those of a convolution's grid, divided by one whole number and rounded up."""
    return any(
        (-(-height // factor), -(-width // factor)) == lengths
        for height, width in conv_grids
        for factor in range(1, max(height, width) + 1)
    )
