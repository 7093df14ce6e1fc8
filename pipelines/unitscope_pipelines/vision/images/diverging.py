"""Diverging pictures of signed values: grey is zero, and one scale holds for the whole picture."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from unitscope_schemas.errors import UsageError

GREY, SWING, PAPER = 128, 127, 255
"""Levels of zero and of white paper, and levels between zero and the scale."""
SHOWN_SHARE = 0.995
"""Share of a projection's values that the scale holds: a few pixels are so large that the others would be grey."""

FAINT_SHARE = 0.01
"""Share of what it is one of, as a layer's largest weight, below which a picture's own scale would show mere dust: it
is drawn in the scale of that share, and so grows grey."""

Values = Float[NDArray[np.float32], "channel row col"]
"""Signed values by channel."""


class DivergingPicture(NamedTuple):
    """A picture of signed values, and the value that is white where its negative is black.

    The value is 0 where all are zero and no scale is given.
    """

    picture: Image.Image
    scale: float


def diverging_picture(values: Values, share: float = 1.0, least_scale: float = 0.0) -> DivergingPicture:
    """Draw three channels as colours, one as grey levels: `128 + 127 × value / scale`, rounded and clipped.

    The scale is the magnitude that this share of the values does not exceed, with 1 the largest, or `least_scale` if
    that is larger. Raises UsageError for another number of channels, which one picture cannot show, and for values that
    are not finite.
    """
    if len(values) not in (1, 3):
        raise UsageError(f"one picture cannot show {len(values)} channels; show one channel at a time")
    magnitudes = np.abs(values)
    if not np.isfinite(magnitudes).all():
        count = int((~np.isfinite(magnitudes)).sum())
        raise UsageError(
            f"{count} of {magnitudes.size} values are not finite (NaN or infinite), so there is no picture of them; "
            "look for weights or activations that are not finite, or ask for another unit"
        )
    scale = max(float(np.quantile(magnitudes, share)) or float(magnitudes.max()), least_scale)
    levels = np.rint(GREY + SWING * np.clip(values / (scale or 1.0), -1, 1)).astype(np.uint8)
    pixels = levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
    return DivergingPicture(Image.fromarray(np.ascontiguousarray(pixels)), scale)
