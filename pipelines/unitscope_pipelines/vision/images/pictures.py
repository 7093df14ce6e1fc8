"""Pictures from bytes: checked before decoding, upright, in plain colours. This needs Pillow only, no torch."""

import io
import struct
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from unitscope_schemas.errors import PictureError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are read, by Pillow's names."""
MOST_PIXELS = 100_000_000
"""Largest number of pixels; larger pictures are refused before decoding, as a small file may claim any size."""
MOST_ELONGATED = 64
"""Largest ratio of the sides; beyond it the resized picture would not fit into memory."""

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError, KeyError)
"""Errors that Pillow's readers raise on damaged files."""


def open_picture(data: bytes, formats: tuple[str, ...] = FORMATS, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Open a picture and check its header; pixels are not decoded yet.

    Raises PictureError for empty or unknown bytes, other formats, too many pixels and extreme shapes.
    """
    if not data:
        raise PictureError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        raise PictureError(f"not a picture in one of the formats {', '.join(formats)}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"more than the limit of {most_pixels:,} pixels") from None
    except _DECODE_ERRORS as error:
        raise PictureError(f"damaged header: {_reason(error)}") from None
    width, height = picture.size
    if width * height > most_pixels:
        raise PictureError(f"{width} × {height} pixels are more than the limit of {most_pixels:,}")
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise PictureError(f"{width} × {height} pixels is longer than {MOST_ELONGATED} times its other side")
    return picture


def upright(picture: Image.Image) -> Image.Image:
    """Decode the first frame with its EXIF orientation applied, as 8-bit RGB over white.

    Raises PictureError if the pixels cannot be decoded completely.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture.load()
            return _plain(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise PictureError("a frame has more pixels than the limit") from None
    except _DECODE_ERRORS as error:
        raise PictureError(f"cannot be decoded: {_reason(error)}") from None


def orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where the tag is missing or unreadable."""
    try:
        value = picture.getexif().get(0x0112, 1)
    except _DECODE_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _plain(picture: Image.Image) -> Image.Image:
    """Return a picture of any mode as 8-bit RGB over white."""
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if "A" in picture.getbands() or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture.convert("RGB")


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
