"""A layer's cells on a picture: where each lies, what its units say there, and a unit's map as a picture."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from unitscope_schemas.answers.patches import ActivationMap
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Box, Location, Placement
from unitscope_schemas.units import LayerSpec
from unitscope_services.encoding.heat import colours, shares

Activations = NDArray[np.float32]
"""Activation of each unit of a layer, in order of channels."""
Cells = dict[str, pa.Table]
"""Activation, row and col of every unit's peak on one picture, by layer, in order of channels."""

_OPACITY = 153
"""Opacity of a map over a picture, of 255: colours can be told, and what is below them recognised."""


@dataclass(frozen=True)
class CellGrid:
    """A layer's cells in pixels of the original picture.

    Each is one stride high and wide around the middle of what its units see. The first and last may lie partly outside.
    """

    rows: int
    cols: int
    top: float
    left: float
    height: float
    width: float

    @classmethod
    def of(cls, layer: LayerSpec, placement: Placement) -> "CellGrid":
        """Return the cells of a layer on a picture; without a stride they are equal shares of what the network sees."""
        field, grid = layer.receptive_field, layer.grid
        if field.size is not None and field.stride is not None and field.start is not None:
            height, width = map(float, field.stride)
            top = field.start.row + (field.size.height - height) / 2
            left = field.start.col + (field.size.width - width) / 2
        else:
            height, width = field.input.height / max(1, grid.height), field.input.width / max(1, grid.width)
            top = left = 0.0
        down, across = (
            placement.image.height / placement.resized.height,
            placement.image.width / placement.resized.width,
        )
        return cls(
            rows=grid.height,
            cols=grid.width,
            top=(top + placement.crop.row) * down,
            left=(left + placement.crop.col) * across,
            height=height * down,
            width=width * across,
        )

    def corner(self, cell: Location) -> tuple[float, float]:
        """Return top and left of a cell."""
        return self.top + cell.row * self.height, self.left + cell.col * self.width


@dataclass(frozen=True)
class CellPeaks:
    """The activations of a layer's units at one location, to be explained like peaks."""

    values: Activations
    location: Location

    def activations(self, layer: str) -> Activations:
        """Return the activation of every unit of the layer at the location."""
        return self.values

    def locations(self, layer: str, channels: list[int]) -> list[Location]:
        """Return the location, once for each of some units."""
        return [self.location] * len(channels)


def checked_cell(layer: LayerSpec, cell: Location) -> Location:
    """Return the cell itself; raises UsageError if it is not on the layer's grid."""
    if not layer.placed:
        raise UsageError(f"{layer.name} has no cells: its tokens have no place in the picture; choose another layer")
    if not (0 <= cell.row < layer.grid.height and 0 <= cell.col < layer.grid.width):
        raise UsageError(
            f"cell {cell.row},{cell.col} is not on the grid of {layer.name}: "
            f"rows 0 to {layer.grid.height - 1}, columns 0 to {layer.grid.width - 1}"
        )
    return cell


def map_picture(activations: ActivationMap) -> Image.Image:
    """Return a unit's map to lay over a picture, in colours from its lowest to its highest activation.

    There is one pixel for each cell, and around them one more that repeats the outermost, so that a map that begins
    half a cell inside still covers the border. What is not finite is grey.
    """
    scaled = np.pad(shares(activations), 1, mode="edge")
    pixels = np.full((*scaled.shape, 4), _OPACITY, np.uint8)
    pixels[..., :3] = colours(scaled)
    return Image.fromarray(pixels, "RGBA")


def with_map(whole: Image.Image, activations: ActivationMap, grid: CellGrid, seen: Box) -> Image.Image:
    """Return a whole picture, maybe scaled, with a unit's map laid over what the network sees of it.

    `grid` and `seen` are in the pixels of `whole`; what lies outside the grid shows the nearest cell.
    """
    laid = np.asarray(map_picture(activations))[1:-1, 1:-1]
    rows = _cells_along(seen.top, seen.bottom, grid.top, grid.height, grid.rows)
    cols = _cells_along(seen.left, seen.right, grid.left, grid.width, grid.cols)
    shown = whole.convert("RGBA")
    shown.alpha_composite(Image.fromarray(laid[rows][:, cols], "RGBA"), (seen.left, seen.top))
    return shown.convert("RGB")


def _cells_along(first: int, end: int, start: float, step: float, count: int) -> NDArray[np.int64]:
    """Return the cell that lies nearest to the middle of each pixel along one side."""
    cells: NDArray[np.int64] = np.floor((np.arange(first, end) + 0.5 - start) / step).astype(np.int64)
    return cells.clip(0, count - 1)


def scaled(grid: CellGrid, down: float, across: float) -> CellGrid:
    """Return the cells of a grid on a picture that was scaled by these factors."""
    return CellGrid(grid.rows, grid.cols, grid.top * down, grid.left * across, grid.height * down, grid.width * across)
