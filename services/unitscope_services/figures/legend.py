"""The legend below a picture with a unit's map: the scale of its colours between the two activations it stands for."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unitscope_services.encoding.heat import scale

LEAST_PX = 96
"""Width from which on there is room for two numbers and colours between them."""
_PAPER, _INK = "#ffffff", "#1a1c1f"
_SHARE, _LEAST, _MOST = 16, 14, 32
"""Height of the legend: this part of the picture's longer side, within bounds in pixels."""
_GAP_PX = 6


def legend_height(side_px: int) -> int:
    """Return the height in pixels that a legend takes below a picture whose longer side has so many."""
    return min(max(side_px // _SHARE, _LEAST), _MOST)


def with_legend(picture: Image.Image, limits: tuple[float, float], height: int) -> Image.Image:
    """Return the picture with a strip below it: the lowest activation, the colours, the highest.

    A minus is a hyphen: the font that is packaged with Pillow has no other.
    """
    low, high = (f"{value:.3g}" for value in limits)
    sheet = Image.new("RGB", (picture.width, picture.height + height), _PAPER)
    sheet.paste(picture, (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(round(0.72 * height))
    middle = picture.height + height / 2
    draw.text((_GAP_PX, middle), low, _INK, font, anchor="lm")
    draw.text((sheet.width - _GAP_PX, middle), high, _INK, font, anchor="rm")
    left = 2 * _GAP_PX + round(draw.textlength(low, font))
    right = sheet.width - 2 * _GAP_PX - round(draw.textlength(high, font))
    if right > left:
        bar = Image.fromarray(np.ascontiguousarray(scale()[None])).resize((right - left, height // 2))
        sheet.paste(bar, (left, picture.height + height // 4))
    return sheet
