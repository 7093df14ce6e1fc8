"""Values of more than 8 bits as 8-bit grey: whole numbers of a known range, and numbers of any."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unitscope_schemas.errors import PictureError

RULE = (
    "values of more than 8 bits: grey of 16 bits is divided by 257, of 12 bits by 16; wider whole numbers and "
    "floating-point numbers go by their range in the picture: within 0 to 1 they are multiplied by 255, within 0 to "
    "255 they stay, within 0 to 65535 they are divided by 257, and any other range is stretched to 0 to 255; a picture "
    "with values that are not finite is skipped"
)
"""How wide values become the 8 bits that a network is shown, in words for the manifest."""

_BITS, _WHITE_IS_ZERO, _SAMPLE_FORMAT, _PLANES = 258, 262, 339, 284
"""Tags of TIFF: bits of each sample, what zero means, kind of number, and whether bands lie apart."""


SCALED = "values "
"""Beginning of the note about a picture whose values were scaled by their range."""


class GreyPicture(NamedTuple):
    """A picture of wide values as 8-bit grey, and what was done to them where that is not plain."""

    picture: Image.Image
    note: str = ""


def is_wide(picture: Image.Image) -> bool:
    """Tell whether a picture holds values of more than 8 bits."""
    return picture.mode == "F" or picture.mode == "I" or picture.mode.startswith("I;16")


def narrowed(picture: Image.Image) -> GreyPicture:
    """Return a decoded picture of wide values as 8-bit grey; raises PictureError for values that are not finite.

    A colour that the file declares transparent is white.
    """
    values = _values(picture)
    note = ""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        most = 4095 if _tag(picture, _BITS) == 12 else 65535
        grey = (values.astype(np.float64) * (255 / most)).astype(np.int64) if most < 65535 else _sixteen(values)
    else:
        grey, note = _by_range(values)
    if _tag(picture, _WHITE_IS_ZERO) == 0:
        grey = 255 - grey
    key = picture.info.get("transparency")
    if isinstance(key, int):
        grey = np.where(values == key, 255, grey)
    return GreyPicture(Image.fromarray(grey.astype(np.uint8)), note)


def check_planes(picture: Image.Image) -> None:
    """Raise PictureError for a plain TIFF whose 16-bit bands lie apart: the decoder mixes them up; call undecoded."""
    plain = any(tile[0] == "raw" for tile in getattr(picture, "tile", ()))
    if plain and _tag(picture, _PLANES) == 2 and _tag(picture, _BITS) == 16 and len(picture.getbands()) > 1:
        raise PictureError("a TIFF whose 16-bit bands lie apart, which the decoder mixes up: save them together")


def _sixteen(values: NDArray[np.generic]) -> NDArray[np.int64]:
    return (values.astype(np.float64) * (1 / 257)).astype(np.int64)


def _by_range(values: NDArray[np.generic]) -> tuple[NDArray[np.int64], str]:
    """Return values of an unknown range in 8 bits, and how they were scaled."""
    exact = values.astype(np.float64)
    bad = exact.size - np.count_nonzero(np.isfinite(exact))
    if bad:
        raise PictureError(f"{bad} of its {exact.size} values are not finite")
    low, high = float(exact.min()), float(exact.max())
    if low >= 0 and high <= 1:
        return np.rint(exact * 255).astype(np.int64), f"{SCALED}within 0 to 1 multiplied by 255"
    if low >= 0 and high <= 255:
        return exact.astype(np.int64), f"{SCALED}within 0 to 255 as they are"
    if low >= 0 and high <= 65535:
        return _sixteen(values), f"{SCALED}within 0 to 65535 divided by 257"
    scaled = (exact - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.rint(scaled * 255).astype(np.int64), f"{SCALED}from {low:g} to {high:g} stretched to 0 to 255"


def _values(picture: Image.Image) -> NDArray[np.generic]:
    values: NDArray[np.generic] = np.asarray(picture)
    if picture.mode == "I" and _tag(picture, _BITS) == 32 and _tag(picture, _SAMPLE_FORMAT) in (None, 1):
        return values.view(np.uint32)  # Pillow reads unsigned numbers as signed ones
    return values


def _tag(picture: Image.Image, tag: int) -> int | None:
    """Return the value of a TIFF's tag, the first of several; None for another file and a tag that is not there."""
    tags = getattr(picture, "tag_v2", None) if picture.format == "TIFF" else None
    value = tags.get(tag) if tags is not None else None
    if isinstance(value, tuple):
        value = value[0] if value else None
    return int(value) if value is not None else None
