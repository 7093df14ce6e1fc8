"""Formats of pictures: which are read, and why bytes that look like one of them are not."""

import io
import struct
import warnings
import zlib
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

from PIL import Image, TiffImagePlugin, features

FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI", "PSD", "DIB", "ICO"),
    *("CUR", "ICNS", "PCX", "DCX", "SGI", "SUN", "DDS", "FTEX", "BLP", "MSP", "XBM", "XPM", "IM", "FITS", "PIXAR"),
    *("GBR", "FLI", "PCD", "MCIDAS", "XVTHUMB", "IMT", "SPIDER", "TGA"),
)
"""Formats that are read, by Pillow's names; those without a mark of their own come last. JPEG finds MPO too, and HEIF
is added where its decoder is installed. Page descriptions (EPS, PDF, WMF), films (MPEG) and containers of data (HDF5,
GRIB) are none."""
DECODE_ERRORS = (
    *(
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
    ),
    *(AssertionError, MemoryError, struct.error, zlib.error),
)
"""Errors that Pillow's readers raise on damaged files."""

_HEIF, _AVIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), (b"avif", b"avis")


def decodable(data: bytes, formats: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of some formats that the installed Pillow knows, with HEIF if a file needs and a decoder has it."""
    known = _known(formats)
    if formats is not FORMATS or _brand(data) not in _HEIF or find_spec("pillow_heif") is None:
        return known
    import_module("pillow_heif").register_heif_opener()
    return (*known, "HEIF")


@lru_cache(maxsize=16)
def _known(formats: tuple[str, ...]) -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)


def why_unknown(data: bytes, formats: tuple[str, ...]) -> str:
    """Return why bytes are a picture in none of some formats: a decoder that is missing, or what they are instead."""
    if _brand(data) in _HEIF:
        return "HEIC, whose decoder is not installed: pip install 'unitscope[heif]'"
    if _brand(data) in _AVIF and not features.check("avif"):
        return "AVIF, which the installed Pillow cannot decode"
    if "TIFF" in formats and data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _of_tiff(data)
    some = formats if len(formats) < 9 else (*formats[:9], f"{len(formats) - 9} more")
    return f"not a picture in one of the formats {', '.join(some)}"


def _of_tiff(data: bytes) -> str:
    """Return what a TIFF holds that the decoder does not read."""
    file = io.BytesIO(data)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if 43 in data[2:4] else 8))
        file.seek(tags.next)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags.load(file)
        bits, kinds = tags.get(258, (1,)), tags.get(339, (1,))
        kind = {1: "whole numbers", 2: "signed whole numbers", 3: "floating-point numbers"}.get(kinds[0], "samples")
        layout = f"{tags.get(277, len(bits))} bands of {bits[0]}-bit {kind}"
    except (*DECODE_ERRORS, AttributeError):
        return "a TIFF whose directory is damaged"
    return f"a TIFF of {layout}, which the decoder does not read"


def _brand(data: bytes) -> bytes:
    """Return the brand of a file in boxes, as HEIC and AVIF are; empty for another file."""
    return data[8:12] if data[4:8] == b"ftyp" else b""


def frame_count(picture: Image.Image) -> int:
    """Return how many frames or pages a file has, 1 where layers or sizes of one picture are meant."""
    if picture.format in ("PSD", "ICO", "ICNS", "CUR", "SPIDER"):
        return 1
    try:
        count = int(getattr(picture, "n_frames", 1))
        if count > 1:
            picture.seek(0)
    except (*DECODE_ERRORS, Image.DecompressionBombError):
        return 1
    return count
