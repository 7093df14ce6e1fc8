"""Places of locations: the grid that they fill, and the order in which the output has them, told from their boxes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unitscope_pipelines.vision.receptive_fields.dependency import JUMPS
from unitscope_schemas.geometry import Size

VERTICAL, HORIZONTAL = [0, 1, 4, 5], [2, 3, 6, 7]
"""Planes of a dependency that bound rows, and those that bound columns."""

_SIDES = ((VERTICAL, HORIZONTAL), ([0, 1], [2, 3]), ([4, 5], [6, 7]))
"""Planes that tell rows, and those that tell columns: all of them, or only those inside the input, or only beyond."""


class Places(NamedTuple):
    """A grid of locations, and where the output has each of them."""

    grid: Size
    """Rows and columns that are filled."""
    prefix: int
    """Number of tokens without a place."""
    order: tuple[int, ...]
    """Positions in the output: those without a place first, then the grid in row order; empty if they lie so."""


def token_places(bounds: Float[Tensor, "plane token"]) -> Places | None:
    """Return the places of tokens in any order; None unless they fill the rows and columns of one grid.

    Class and register tokens come of no pixel, or of all of them; they may stand anywhere among the others.
    """
    placed = _placed(bounds)
    tokens = placed.nonzero().flatten()
    for vertical, horizontal in _SIDES:
        row, rows = _ranks(bounds[vertical][:, tokens])
        col, cols = _ranks(bounds[horizontal][:, tokens])
        cell = row * cols + col
        if rows * cols == len(tokens) > 0 and len(set(cell.tolist())) == len(tokens):
            special = (~placed).nonzero().flatten()
            return Places(Size(rows, cols), len(special), _order(torch.cat([special, tokens[cell.argsort()]])))
    return None


def map_order(bounds: Float[Tensor, "plane row col"]) -> tuple[int, ...]:
    """Return where a map has each location of its grid, empty if its rows lie from top to bottom and columns likewise.

    Rows count as turned round or moved only where their boxes say so without doubt: a stride of a transposed
    convolution may step back by a pixel and is no order of its own.
    """
    row = _turned(bounds.amax(2)[VERTICAL])
    col = _turned(bounds.amax(1)[HORIZONTAL])
    return _order((row[:, None] * bounds.shape[2] + col).flatten())


def _placed(bounds: Float[Tensor, "plane token"]) -> Bool[Tensor, " token"]:
    """Return which tokens come of some pixels, and not of all of them while others do not."""
    some = bounds[0].isfinite()
    everywhere = (bounds[: JUMPS.start] == bounds[: JUMPS.start].amax(1, keepdim=True)).all(0)
    return some & (~everywhere | everywhere[some].all())


def _ranks(bounds: Float[Tensor, "bound token"]) -> tuple[Int64[Tensor, " token"], int]:
    """Return for each token the number of its row (or column) from the top (or left), and how many there are."""
    distinct, number = np.unique(bounds.T.numpy(), axis=0, return_inverse=True)
    ranks = np.empty(len(distinct), np.int64)
    ranks[sorted(range(len(distinct)), key=lambda at: _middles(distinct[at].tolist()))] = np.arange(len(distinct))
    return torch.from_numpy(ranks[number.reshape(-1)]), len(distinct)


def _middles(bounds: Sequence[float]) -> tuple[float, ...]:
    """Return the doubled middle of each pair of bounds (−first, end); an unknown one counts as the one before it."""
    middles: list[float] = []
    for first, end in zip(bounds[::2], bounds[1::2], strict=True):
        middle = end - first
        middles.append(middle if math.isfinite(middle) else (middles or [0.0])[-1])
    return tuple(middles)


def _turned(bounds: Float[Tensor, "bound position"]) -> Int64[Tensor, " position"]:
    """Return the positions along one side in the order of their places; in their own order where that is in doubt."""
    count = bounds.shape[1]
    for first, end in (bounds[2:], bounds[:2]):
        if bool((first + end).isfinite().all()):
            order: Tensor = (end - first).argsort(stable=True)
            if _is_told(first[order], end[order], order):
                return order
    return torch.arange(count)


def _is_told(
    first: Float[Tensor, " position"], end: Float[Tensor, " position"], order: Int64[Tensor, " position"]
) -> bool:
    """Return whether spans (−first, end), sorted, tell the order of their positions.

    They do where they lie apart, and where they are of one size and go round in one direction.
    """
    apart = bool((-first[1:] >= end[:-1]).all())
    sizes, steps = first + end, order.diff() % len(order)
    return apart or (bool((sizes == sizes[0]).all()) and bool((steps == steps[:1]).all()))


def _order(positions: Int64[Tensor, " position"]) -> tuple[int, ...]:
    """Return positions as a tuple, empty if they are in order already."""
    return () if torch.equal(positions, torch.arange(len(positions))) else tuple(positions.tolist())
