"""What of a picture is above a unit's threshold: its map upsampled to pixels, and the rest of the picture darkened."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unitscope_schemas.answers.patches import ActivationMap
from unitscope_schemas.geometry import Box
from unitscope_services.encoding.cells import CellGrid

SHARE = 0.5
"""Share of the peak that is the threshold; at half of it a peak's width is commonly measured."""
_LEFT = 0.2
"""Share of the brightness that is left outside: dark enough to set the inside off, and still to be recognised."""


def mask(activations: ActivationMap, grid: CellGrid, box: Box) -> NDArray[np.bool_]:
    """Return which pixels of a box of a picture have at least half of the highest activation of the whole map, row ×
    col.

    The map is upsampled as in network dissection (Bau et al. 2017, section 2.2): bilinearly, each activation in the
    middle of its cell; beyond the outermost middles it goes on unchanged. Their threshold is a quantile over all
    locations of all images; an atlas stores peaks only, so here it is a share of the picture's own peak. Shares count
    from zero, or from the lowest activation where none is above zero. What is not finite is outside.
    """
    values = np.array(
        [[np.nan if value is None else value for value in line] for line in activations.values], np.float64
    )
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(box.size, bool)
    high = values[finite].max()
    low = 0.0 if high > 0 else values[finite].min()
    rows = _weights(np.arange(box.top, box.bottom), grid.top, grid.height, grid.rows)
    cols = _weights(np.arange(box.left, box.right), grid.left, grid.width, grid.cols)
    upsampled = rows @ np.where(finite, values, low) @ cols.T
    # a hair below the threshold is rounding, as where all of the map is equal
    inside_mask: NDArray[np.bool_] = upsampled >= low + SHARE * (high - low) - 1e-9 * abs(high)
    return inside_mask


def masked(patch: Image.Image, inside: NDArray[np.bool_]) -> Image.Image:
    """Return a picture, darkened outside of a mask."""
    pixels = np.asarray(patch.convert("RGB"))
    return Image.fromarray(np.where(inside[..., None], pixels, np.rint(pixels * _LEFT).astype(np.uint8)))


def _weights(pixels: NDArray[np.int64], start: float, step: float, count: int) -> NDArray[np.float64]:
    """Return the shares of the two cells between whose middles the middle of a pixel lies, pixel × cell."""
    position = ((pixels + 0.5 - start) / step - 0.5).clip(0, count - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(count)))
    return weights
