"""Pictures from bytes: checked before decoding, upright, in plain colours. This needs Pillow only, no torch."""

import io
import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageCms, UnidentifiedImageError

from unitscope_pipelines.vision.images.formats import DECODE_ERRORS, FORMATS, decodable, frame_count, why_unknown
from unitscope_pipelines.vision.images.wide_values import RULE, SCALED, check_planes, is_wide, narrowed
from unitscope_schemas.errors import PictureError

MOST_PIXELS = 100_000_000
"""Largest number of pixels; larger pictures are refused before decoding, as a small file may claim any size."""
MOST_ELONGATED = 64
"""Largest ratio of the sides; beyond it the resized picture would not fit into memory."""

RULES = (
    "the first frame of an animation, the first page of several, the first picture of a stereo pair",
    RULE,
    "transparent pixels over white",
    "colour profiles are not applied: networks were trained on values as they are; CIE Lab is converted to sRGB, and "
    "CMYK by (255 - cyan) (255 - black) / 255 for red, and likewise for green and blue",
)
"""How a picture's values are read, in words for the manifest; what was done to a picture stands beside it."""

_FIRST, _PROFILE = "the first of ", "the colour profile "
_SUMMARIES = {
    _FIRST: "pictures are the first of several frames or pages",
    SCALED: "pictures have values of more than 8 bits, which were scaled by their range",
    _PROFILE: "pictures have a colour profile other than sRGB, which is not applied",
}
_SRGB = ("srgb", "c2", "urgb")
"""Beginnings of the names of colour profiles that are sRGB, some of them in few bytes."""
_TURN = Image.Transpose
_TURNS = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""
_KEY_SCALES = {"1": 255, "L;2": 85, "L;4": 17}
"""What a transparent grey of few bits is multiplied by to be a grey of 8 bits, by Pillow's name for the layout."""


class UprightPicture(NamedTuple):
    """A decoded picture, upright and in plain colours, and what was done to it that a person would want to know."""

    picture: Image.Image
    notes: tuple[str, ...]


def open_picture(data: bytes, formats: tuple[str, ...] = FORMATS, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Open a picture and check its header; pixels are not decoded yet.

    Raises PictureError for empty or unknown bytes, other formats, too many pixels and extreme shapes.
    """
    if not data:
        raise PictureError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=decodable(data, formats))
    except UnidentifiedImageError:
        raise PictureError(why_unknown(data, formats)) from None
    except Image.DecompressionBombError:
        raise PictureError(f"more than the limit of {most_pixels:,} pixels") from None
    except DECODE_ERRORS as error:
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
    return decoded(picture).picture


def decoded(picture: Image.Image) -> UprightPicture:
    """Decode a picture as `upright` does, and note what was done to it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _mend_key(picture)
            check_planes(picture)
            picture.load()
            plain, note = _plain(picture)
            turn = _TURNS.get(orientation(picture))
            turned = plain if turn is None else plain.transpose(turn)
            return UprightPicture(turned, tuple(filter(None, (note, *file_notes(picture)))))
    except Image.DecompressionBombError:
        raise PictureError("a frame has more pixels than the limit") from None
    except DECODE_ERRORS as error:
        raise PictureError(f"cannot be decoded: {_reason(error)}") from None


def file_notes(picture: Image.Image) -> tuple[str, ...]:
    """Return what a person would want to know of how a file is read, whatever its pixels are."""
    count, notes = frame_count(picture), []
    if count > 1:
        notes.append(f"{_FIRST}{count} frames")
    profile = picture.info.get("icc_profile")
    name = _profile_name(profile) if isinstance(profile, bytes) and profile else ""
    if name and not name.lower().startswith(_SRGB):
        notes.append(f"{_PROFILE}{name} is not applied")
    return tuple(notes)


def summed_notes(notes: Iterable[str]) -> list[str]:
    """Return how many pictures have notes of each kind, in sentences."""
    texts = list(notes)
    counts = {sentence: sum(beginning in text for text in texts) for beginning, sentence in _SUMMARIES.items()}
    return [f"{count} {sentence}" for sentence, count in counts.items() if count]


@lru_cache(maxsize=256)
def _profile_name(profile: bytes) -> str:
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return "that cannot be read"
    return " ".join(name.split())[:60]


def orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where the tag is missing or unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = picture.getexif().get(0x0112, 1)
    except DECODE_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _plain(picture: Image.Image) -> tuple[Image.Image, str]:
    """Return a picture of any mode as 8-bit RGB over white, and what was done to its values."""
    if is_wide(picture):
        grey, note = narrowed(picture)
        return grey.convert("RGB"), note
    if picture.mode in _WHOLE:
        picture = picture.convert(_WHOLE[picture.mode])
    if "A" in picture.getbands() or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB"), ""
    return picture.convert("RGB"), ""


_WHOLE = {"La": "LA", "RGBa": "RGBA"}
"""Modes whose colours are multiplied by their opacity, and what they become first."""


def _mend_key(picture: Image.Image) -> None:
    """Bring the colour that a file declares transparent to the bits that its pixels will have; call before decoding."""
    key = picture.info.get("transparency")
    tile = next(iter(getattr(picture, "tile", ())), None)
    layout = tile.args if tile is not None and isinstance(tile.args, str) else ""
    if isinstance(key, int) and layout in _KEY_SCALES:
        picture.info["transparency"] = min(255, key * _KEY_SCALES[layout])
    elif isinstance(key, tuple) and layout == "RGB;16B":
        picture.info["transparency"] = tuple(value >> 8 for value in key)


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
