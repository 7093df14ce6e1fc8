"""Embeddings of images: a layer's output pooled over regions, several unit-length vectors at three scales."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unitscope_pipelines.vision.recording.peaks import arranged
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Box, Size
from unitscope_schemas.units import LayerSpec

SCALES = (1, 2, 3)
"""Numbers of regions per side, scale by scale: 1 + 4 + 9 regions (Tolias et al. 2016, R-MAC)."""


def cell_regions(grid: Size) -> list[Box]:
    """Return the regions in grid cells: at scale s, s × s overlapping windows of 2 / (s + 1) of the side.

    Regions that coincide count once.
    """
    regions = [
        Box(top, left, top + height, left + width)
        for scale in SCALES
        for top, height in _windows(grid.height, scale)
        for left, width in _windows(grid.width, scale)
    ]
    return list(dict.fromkeys(regions))


def region_boxes(layer: LayerSpec) -> list[Box]:
    """Return the regions of a layer's grid in input pixels, in the order of `cell_regions`."""
    size = layer.receptive_field.input
    return [
        Box(
            cells.top * size.height // layer.grid.height,
            cells.left * size.width // layer.grid.width,
            -(cells.bottom * size.height // -layer.grid.height),
            -(cells.right * size.width // -layer.grid.width),
        )
        for cells in cell_regions(layer.grid)
    ]


def cells_of(box: Box, layer: LayerSpec) -> Box:
    """Return the grid cells that a box of input pixels touches, at least one."""
    size, grid = layer.receptive_field.input, layer.grid
    top = min(box.top * grid.height // size.height, grid.height - 1)
    left = min(box.left * grid.width // size.width, grid.width - 1)
    return Box(
        top,
        left,
        max(top + 1, -(box.bottom * grid.height // -size.height)),
        max(left + 1, -(box.right * grid.width // -size.width)),
    )


def pool(output: Float[Tensor, "..."], layer: LayerSpec, cells: list[Box]) -> Float[Tensor, "image region unit"]:
    """Return the mean over each region of cells, scaled to unit length; an all-zero region stays zero.

    It is one product with a matrix of regions × cells, so a map's NaN reaches all of its image's regions.
    """
    maps = as_map(output, layer).float()
    shares = _shares(tuple(cells), tuple(maps.shape[2:]), maps.device)
    with torch.autocast(maps.device.type, enabled=False):
        means = shares @ maps.permute(0, 2, 3, 1).flatten(1, 2)
    return F.normalize(means, dim=2)


@lru_cache(16)
def _shares(cells: tuple[Box, ...], grid: tuple[int, int], device: torch.device) -> Float[Tensor, "region cell"]:
    """Return the share of each cell of a grid in each region."""
    with torch.inference_mode(False):  # others may want gradients through them
        shares = torch.zeros(len(cells), *grid)
    for share, (top, left, bottom, right) in zip(shares, cells, strict=True):
        share[top:bottom, left:right] = 1 / ((bottom - top) * (right - left))
    return shares.flatten(1).to(device)


def as_map(output: Float[Tensor, "..."], layer: LayerSpec) -> Float[Tensor, "image unit row col"]:
    """Return any layer's output on its grid; class and register tokens are left out.

    Raises UsageError for tokens that have no place in the picture.
    """
    if not layer.placed:
        raise UsageError(f"{layer.name} has no map: its tokens have no place in the picture; choose another layer")
    values = arranged(output, layer)
    if layer.kind == "vector":
        return values[:, :, None, None]
    if layer.kind == "tokens":
        return values[:, layer.prefix_tokens :].transpose(1, 2).reshape(len(values), -1, *layer.grid)
    return values


def _windows(cells: int, scale: int) -> list[tuple[int, int]]:
    """Return first cell and length of the windows along one side of a grid."""
    length = min(cells, math.ceil(2 * cells / (scale + 1)))
    if scale == 1:
        return [(0, length)]
    return [(round(step * (cells - length) / (scale - 1)), length) for step in range(scale)]
