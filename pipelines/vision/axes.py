"""Which axes of an output are rows and columns, told from what its elements see, else from the convolutions' grids."""

from collections.abc import Sequence

import torch

from pipelines.vision.reaches import Reach, thin
from schemas.geometry import Size

MOST_PREFIX_TOKENS = 16

Grid = tuple[int, int]


def is_channels_last(reach: Reach, conv_grids: Sequence[Grid]) -> bool:
    """Whether a map with this reach is (image, row, col, channel).

    Sure where what elements see moves down along one axis and to the right along the next; where all see the same,
    the axes whose lengths a convolution had, or divided evenly, are rows and columns.
    """
    planes = thin(reach)
    vertical, horizontal = planes[[0, 1, 4, 5]], planes[[2, 3, 6, 7]]
    if _varies(vertical, 2) and _varies(horizontal, 3):
        return False
    if _varies(vertical, 1) and _varies(horizontal, 2):
        return True
    rows, cols, last = reach.shape[2:]
    return not _divides((cols, last), conv_grids) and _divides((rows, cols), conv_grids)


def token_grid(tokens: int, conv_grids: Sequence[Grid]) -> Size:
    """The grid that tokens fill in row order.

    It is the last convolution's that they fill but for a few class and register tokens; else one that divides a
    convolution's grid evenly, as merging patches does; else a row.
    """
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


def _varies(planes: Reach, axis: int) -> bool:
    """Whether elements along an axis (of the tensor, without its images) see different places."""
    first = planes.narrow(axis + 1, 0, 1)
    return not torch.equal(first.expand_as(planes), planes)


def _divides(lengths: Grid, conv_grids: Sequence[Grid]) -> bool:
    return any(
        (-(-height // factor), -(-width // factor)) == lengths
        for height, width in conv_grids
        for factor in range(1, max(height, width) + 1)
    )
