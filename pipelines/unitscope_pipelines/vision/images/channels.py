"""Pictures of any number of channels, from arrays and TIFF: multispectral and depth pictures, in levels of 255.

The rule of their values stands in the manifest, `Preprocessing.values`.
"""

import io
import struct
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unitscope_pipelines.vision.images.pictures import MOST_PIXELS, open_picture
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import PictureError

Levels = UInt8[NDArray[np.uint8], "channel row col"] | Float32[NDArray[np.float32], "channel row col"]
"""Values of which 255 is the end of the range."""

_ARRAY, _TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RANGES = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float": (0.0, 1.0)}
"""Ranges of values that are known without being told, by the name of the type."""
_SLACK = 1e-3
"""Share by which floating point values may lie beyond 0 and 1 without being told a range: resampling overshoots."""


class ChannelPicture(NamedTuple):
    """A picture of any number of channels."""

    levels: Levels
    format: str
    mode: str
    """Count and type of its channels, for example `12 × uint16`."""


def is_array(data: bytes) -> bool:
    """Return whether a file is an array as NumPy stores it."""
    return data.startswith(_ARRAY)


def read_channels(data: bytes, preprocessing: Preprocessing, most_pixels: int = MOST_PIXELS) -> ChannelPicture:
    """Read the channels that a network takes from `.npy`, TIFF, or a picture that Pillow opens with as many bands.

    An array's channels are its first or last axis, whichever has the network's number. Raises PictureError for another
    number of channels, values that are not finite, and a type or values whose range is not known.
    """
    try:
        if is_array(data):
            values, file_format = _array_channels(_array(data, most_pixels), preprocessing.channels), "NPY"
        elif data[:4] in _TIFF:
            values, file_format = _tiff(data, most_pixels), "TIFF"
        else:
            values, file_format = _bands(data, most_pixels)
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, SyntaxError) as error:
        raise PictureError(
            f"cannot be decoded: {str(error).splitlines()[0][:200] if str(error) else error!r}"
        ) from None
    if len(values) != preprocessing.channels:
        raise PictureError(f"has {len(values)} channels; the network takes {preprocessing.channels}")
    mode = f"{len(values)} × {values.dtype.name}"
    return ChannelPicture(_levels(values, preprocessing.value_range), file_format, mode)


def shown_picture(data: bytes, preprocessing: Preprocessing) -> Image.Image:
    """Return a picture of any number of channels as people see it: the channels that are shown, clipped to 0..255."""
    levels = read_channels(data, preprocessing).levels[list(preprocessing.shown_channels)]
    pixels = np.rint(np.clip(levels, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)).convert("RGB")


def _array(data: bytes, most_pixels: int) -> NDArray[np.generic]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise PictureError("an array of Python objects is no picture")
    _check_size(shape, most_pixels)
    if int(np.prod(shape, dtype=np.int64)) * dtype.itemsize != len(data) - file.tell():
        raise PictureError(f"the array should be {shape} of {dtype.name}; the file is of another length")
    return np.load(io.BytesIO(data), allow_pickle=False)  # type: ignore[no-any-return]


def _tiff(data: bytes, most_pixels: int) -> NDArray[np.generic]:
    """Return the first series of a TIFF with its channels first, its pages being channels if it has no others."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            _check_size(series.shape, most_pixels)
            values, axes = series.asarray(), series.axes
            tag = file.pages[0].tags.get(274)  # type: ignore[union-attr]
    except tifffile.TiffFileError as error:
        raise PictureError(f"damaged header: {str(error)[:200]}") from None
    except (RuntimeError, ImportError) as error:
        raise PictureError(f"cannot be decoded: {str(error)[:200]}") from None
    rows, cols = axes.find("Y"), axes.find("X")
    if values.ndim not in (2, 3) or min(rows, cols) < 0:
        raise PictureError(
            f"a TIFF of axes {axes} and shape {values.shape} is no picture of rows, columns and channels"
        )
    others = [axis for axis in range(values.ndim) if axis not in (rows, cols)]
    channels = values.transpose(*others, rows, cols).reshape(-1, values.shape[rows], values.shape[cols])
    return _turned(channels, int(tag.value) if tag is not None else 1)


def _bands(data: bytes, most_pixels: int) -> tuple[NDArray[np.generic], str]:
    picture = open_picture(data, most_pixels=most_pixels)
    upright = np.asarray(ImageOps.exif_transpose(picture))
    return upright[None] if upright.ndim == 2 else upright.transpose(2, 0, 1), picture.format or ""


def _turned(values: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Return rows and columns, the last two axes, upright, by the orientation that EXIF and TIFF share."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(-1, -2)
    if orientation in (2, 3, 6, 7):
        values = values[..., ::-1]
    return values[..., ::-1, :] if orientation in (3, 4, 7, 8) else values


def _check_size(shape: tuple[int, ...], most_pixels: int) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise PictureError(f"an array of shape {shape} is no picture of rows, columns and channels")
    if int(np.prod(sorted(shape)[-2:], dtype=np.int64)) > most_pixels:
        raise PictureError(f"{' × '.join(map(str, shape))} values are more than the limit of {most_pixels:,} pixels")


def _array_channels(values: NDArray[np.generic], count: int) -> NDArray[np.generic]:
    """Return an array with channels first; raise PictureError unless exactly one end axis has so many."""
    shape = values.shape
    if values.ndim == 2:
        return values[None]
    ends = [axis for axis in (0, 2) if shape[axis] == count]
    if len(ends) == 2:
        raise PictureError(f"an array of shape {shape} has {count} values along both ends: which are the channels?")
    if not ends:
        raise PictureError(f"an array of shape {shape} has no {count} channels, as the network takes, at either end")
    return values if ends == [0] else values.transpose(2, 0, 1)


def _levels(values: NDArray[np.generic], value_range: tuple[float, float] | None) -> Levels:
    """Return values in levels of 255: 8-bit ones as they are, others by the range of their type or the one given."""
    name = "float" if values.dtype.kind == "f" else values.dtype.name
    if value_range is None and name not in _RANGES:
        raise PictureError(f"values of type {values.dtype.name} need a value_range in the network's data config")
    if name == "uint8" and value_range is None:
        return np.ascontiguousarray(values, np.uint8)
    numbers = values.astype(np.float64)
    broken = int((~np.isfinite(numbers)).sum())
    if broken:
        raise PictureError(f"{broken} values are not finite")
    low, high = value_range or _RANGES[name]
    levels = (numbers - low) / (high - low)
    if value_range is None and name == "float" and not -_SLACK <= levels.min() <= levels.max() <= 1 + _SLACK:
        raise PictureError(
            f"values from {numbers.min():.4g} to {numbers.max():.4g} are not between 0 and 1; say between which they "
            "lie by value_range in the network's data config"
        )
    return np.ascontiguousarray(255 * levels, np.float32)
