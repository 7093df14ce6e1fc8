"""Colours of a unit's map: from its lowest activation to its highest the lightness rises evenly."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas.answers.patches import ActivationMap

Shares = NDArray[np.float64]
"""Where activations lie between the lowest and the highest of a map, row × col; NaN where they are not finite."""
Colours = NDArray[np.uint8]
"""Red, green and blue along the last axis."""

UNKNOWN = (128, 128, 128)
"""Grey of what is not finite; the scale itself has no grey."""
LEVELS = 256
_LOW, _HIGH = 0.22, 0.95
"""Lightness of the lowest and the highest colour, in Oklab: dark and light enough to be told from most pictures."""
_HUES = (-75.0, 105.0)
"""Hue of the lowest and the highest in degrees: from violet over red and orange to yellow."""
_CHROMAS = (0.09, 0.2, 0.13)
"""Chroma of the lowest, the middle and the highest: as much as a screen can show there."""
_TO_CONES = np.array(
    (
        (1.0, 0.3963377774, 0.2158037573),
        (1.0, -0.1055613458, -0.0638541728),
        (1.0, -0.0894841775, -1.2914855480),
    )
)
_FROM_CONES = np.array(
    (
        (4.0767416621, -3.3077115913, 0.2309699292),
        (-1.2684380046, 2.6097574011, -0.3413193965),
        (-0.0041960863, -0.7034186147, 1.7076147010),
    )
)
"""Matrices from Oklab to cones, and from the cubes of these to linear red, green and blue: Ottosson 2020, "A perceptual
color space for image processing"."""


def limits(activations: ActivationMap) -> tuple[float, float] | None:
    """Return the lowest and the highest finite activation of a map; None where there is none."""
    finite = [value for line in activations.values for value in line if value is not None]
    return (min(finite), max(finite)) if finite else None


def shares(activations: ActivationMap) -> Shares:
    """Return where each activation lies between the map's lowest (0) and highest (1); 0 where all are equal."""
    values = np.array(activations.values, np.float64)
    low, high = limits(activations) or (0.0, 0.0)
    scaled: Shares = np.where(np.isfinite(values), (values - low) / ((high - low) or 1.0), math.nan)
    return scaled


def colours(scaled: Shares) -> Colours:
    """Return the colours of shares from 0 to 1, grey for NaN."""
    levels = np.rint(np.nan_to_num(scaled) * (LEVELS - 1)).astype(np.int64)
    shown: Colours = np.where(np.isfinite(scaled)[..., None], scale()[levels], np.array(UNKNOWN, np.uint8))
    return shown


@cache
def scale() -> Colours:
    """Return the colours from the lowest to the highest: lightness rises evenly, hue turns one way."""
    steps = np.linspace(0.0, 1.0, LEVELS)
    lightness = _LOW + (_HIGH - _LOW) * steps
    chroma = np.interp(steps, (0.0, 0.5, 1.0), _CHROMAS)
    hue = np.radians(np.interp(steps, (0.0, 1.0), _HUES))
    cones = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1) @ _TO_CONES.T
    light = (cones**3 @ _FROM_CONES.T).clip(0.0, 1.0)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table: Colours = np.rint(255 * encoded).astype(np.uint8)
    table.flags.writeable = False
    return table
