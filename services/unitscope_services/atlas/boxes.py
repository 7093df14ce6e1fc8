"""Boxes of many peaks of one layer at once, as arrays, and the box that a question is about."""

from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Box, Location, Placement, ReceptiveField, Size

Boxes = NDArray[np.int64]
"""Boxes as an array, box × side: top, left, bottom, right."""


class FieldBoxes:
    """Theoretical and effective boxes and padding of all locations of a grid, for units of one receptive field.

    Top and bottom of each depend on the row alone, left and right on the column alone.
    """

    def __init__(self, field: ReceptiveField, grid: Size) -> None:
        token = Location(-1, 0)
        rows = [*(Location(row, 0) for row in range(grid.height)), token]
        cols = [*(Location(0, col) for col in range(grid.width)), token]
        self._rows = np.array([_boxes_at(field, location) for location in rows])
        self._cols = np.array([_boxes_at(field, location) for location in cols])
        self._width = len(cols)
        # padding does not depend on the picture, so it is made once
        every = np.indices((len(rows), len(cols))).reshape(2, -1)
        self._paddings = as_boxes(self._three_boxes(*every)[:, 2])

    def at(self, row: NDArray[Any], col: NDArray[Any]) -> tuple[Boxes, Boxes, list[Box]]:
        """Return theoretical boxes, effective boxes and padding at these locations, in input pixels."""
        boxes = self._three_boxes(row, col)
        cells = np.where(row < 0, -1, row.astype(np.int64) * self._width + col)
        return boxes[:, 0], boxes[:, 1], [self._paddings[cell] for cell in cells.tolist()]

    def _three_boxes(self, row: NDArray[Any], col: NDArray[Any]) -> NDArray[np.int64]:
        """Return the three boxes of each location: location × (theoretical, effective, padding) × side."""
        boxes: NDArray[np.int64] = self._rows[row]
        boxes[..., 1::2] = self._cols[np.where(row < 0, -1, col)][..., 1::2]
        return boxes


def to_image(boxes: Boxes, placed: dict[str, NDArray[np.int64]]) -> Boxes:
    """Return boxes of input pixels in their original pictures, whose placements are columns of the images table.

    Boxes of several kinds for each picture have the pictures as their last axis but one.
    """
    crop = np.stack([placed["crop_row"], placed["crop_col"]], axis=1)
    image = np.stack([placed["height_px"], placed["width_px"]], axis=1)
    resized = np.stack([placed["resized_height_px"], placed["resized_width_px"]], axis=1)
    first = np.clip((boxes[..., :2] + crop) * image // resized, 0, image)
    end = np.clip(-((boxes[..., 2:] + crop) * image // -resized), first, image)
    return np.concatenate([first, end], axis=-1)


def as_boxes(boxes: Boxes) -> list[Box]:
    """Return an array of boxes as a list of them."""
    return list(map(tuple.__new__, repeat(Box), zip(*boxes.T.tolist(), strict=True)))  # columns first: half the time


def checked_box(box: Box, placement: Placement) -> Box:
    """Return the part of an original box that the network sees, in input pixels; raises UsageError if there is none."""
    size = placement.image
    if not box.inside(size):
        raise UsageError(
            f"box {','.join(map(str, box))} is not within the picture: "
            f"0,0 to {size.height},{size.width} as top,left,bottom,right, not empty"
        )
    seen = placement.to_input(box)
    if min(seen.size) <= 0:
        raise UsageError(f"box {','.join(map(str, box))} lies outside what the network sees: {placement.seen}")
    return seen


def _boxes_at(field: ReceptiveField, location: Location) -> list[Box]:
    """Return the theoretical box, the effective box and the padding at a location."""
    return [field.box_at(location), field.effective_box_at(location), field.padding_at(location)]
