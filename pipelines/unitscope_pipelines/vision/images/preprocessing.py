"""Preprocessing from a file's bytes to the network's input, with the placement that leads back to the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torchcodec.decoders import decode_jpeg
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from unitscope_pipelines.vision.images.channels import is_array, read_channels
from unitscope_pipelines.vision.images.pictures import MOST_PIXELS, decoded, file_notes, open_picture, orientation
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import ModelError, PictureError, listing
from unitscope_schemas.geometry import Location, Placement, Size

Pixels = UInt8[Tensor, "channel row col"] | Float32[Tensor, "channel row col"]
"""Values of one picture, of which 255 is the end of the range: bytes, or numbers where it has more than 8 bits."""
PixelBatch = UInt8[Tensor, "image channel row col"] | Float32[Tensor, "image channel row col"]
"""Values of several pictures."""
MOST_CHANNELS = 16
"""Most channels of a network's input."""

_DATA_CONFIG: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "value_range": None,
    "shown": None,
}
"""Data config of ImageNet, in timm's words, and two of our own."""


@dataclass(frozen=True)
class Prepared:
    """A picture as the network will see it; in memory its channels come last."""

    pixels: Pixels
    placement: Placement
    """Resize and crop that lead from the upright picture to the pixels."""
    format: str
    """Format of the file by Pillow's name, for example `JPEG`."""
    mode: str
    """Mode of the file's pixels by Pillow's name, for example `RGB`."""
    notes: tuple[str, ...] = ()
    """What was done to the picture that a person would want to know, such as that it is the first of several frames."""


def prepare(data: bytes, preprocessing: Preprocessing, most_pixels: int = MOST_PIXELS) -> Prepared:
    """Decode, resize and crop a picture; raise PictureError with the reason if the bytes are no usable one."""
    if preprocessing.channels not in (1, 3) or is_array(data):
        read = read_channels(data, preprocessing, most_pixels)
        return _placed(torch.from_numpy(read.levels), preprocessing, (read.format, read.mode, ()))
    picture = open_picture(data, most_pixels=most_pixels)
    if picture.format == "JPEG" and picture.mode in ("RGB", "L") and orientation(picture) == 1:
        pixels, notes = _decode_jpeg(data), file_notes(picture)
    else:
        whole, notes = decoded(picture)
        pixels = torch.from_numpy(np.array(whole)).permute(2, 0, 1)
    if preprocessing.channels == 1:
        pixels = transform.rgb_to_grayscale(pixels)
    return _placed(pixels, preprocessing, (picture.format or "", picture.mode, notes))


def _placed(pixels: Pixels, preprocessing: Preprocessing, about: tuple[str, str, tuple[str, ...]]) -> Prepared:
    """Resize and crop the pixels of an upright picture, of which format, mode and notes are told."""
    placement = place(Size(pixels.shape[1], pixels.shape[2]), preprocessing)
    resized = transform.resize(
        pixels, list(placement.resized), InterpolationMode(preprocessing.interpolation), antialias=True
    )
    top, left = placement.crop
    height, width = placement.input
    seen = resized[:, top : top + height, left : left + width]
    return Prepared(seen.permute(1, 2, 0).contiguous().permute(2, 0, 1), placement, *about)


def stacked(pixels: Sequence[Pixels]) -> PixelBatch:
    """Return pictures of one size as a batch: of numbers if one of them is."""
    numbers = any(one.is_floating_point() for one in pixels)
    batch: PixelBatch = torch.stack([one.float() if numbers else one for one in pixels])
    return batch


def from_data_config(config: Mapping[str, object], model: str) -> Preprocessing:
    """Return the preprocessing that a data config in timm's words asks for.

    Its keys are `input_size` (channel, row, col), `crop_pct`, `crop_mode`, `interpolation`, `mean` and `std`, the last
    two of values from 0 to 1; what is left out is as for ImageNet. Two more are for networks that take arrays or TIFF:
    `value_range`, the two values that become 0 and 1, and `shown`, the three channels that pictures show. Raises
    ModelError for what cannot be done to a picture here.
    """
    unknown = [key for key in config if key not in _DATA_CONFIG]
    if unknown:
        near = get_close_matches(str(unknown[0]), _DATA_CONFIG, n=1) or list(_DATA_CONFIG)
        raise ModelError(f"{model}: unknown key {unknown[0]!r} in its data config; did you mean {listing(near)}?")
    wanted: dict[str, Any] = {**_DATA_CONFIG, **config}
    channels, height, width = wanted["input_size"]
    if not 1 <= channels <= MOST_CHANNELS:
        raise ModelError(f"{model} takes {channels} channels; pictures have 1 to {MOST_CHANNELS}")
    value_range, shown = _pair(wanted["value_range"], model), wanted["shown"]
    if shown is not None and (len(shown) != 3 or any(channel not in range(channels) for channel in shown)):
        raise ModelError(f"{model}: shown is {shown!r}; it is three of the channels 0 to {channels - 1}")
    if channels not in (1, 3) and {"mean", "std"} - config.keys():
        raise ModelError(f"{model} takes {channels} channels, of which its data config has to give mean and std")
    if wanted["crop_mode"] != "center" or wanted["interpolation"] not in ("bicubic", "bilinear"):
        raise ModelError(
            f"{model} wants crop mode {wanted['crop_mode']!r} and {wanted['interpolation']!r} interpolation; there are "
            "'center', and 'bicubic' and 'bilinear'"
        )
    mean, std = (
        tuple(255 * float(value) for value in (values if isinstance(values, Sequence) else (values,)))
        for values in (wanted["mean"], wanted["std"])
    )
    if {len(mean), len(std)} - {1, channels} or not all(std):
        raise ModelError(f"{model}: mean and std are one number, none of std 0, for each of the {channels} channels")
    told = "" if value_range is None else "{:g} becomes 0 and {:g} becomes 255 in float32".format(*value_range)
    return Preprocessing(
        # an input that is not square is cut from a picture that fills it in both directions
        resize_px=int(max(height, width) / wanted["crop_pct"]),
        input=Size(height, width),
        interpolation=wanted["interpolation"],
        mean=mean * (channels // len(mean)),
        std=std * (channels // len(std)),
        value_range=value_range,
        values=told or Preprocessing.model_fields["values"].default,
        shown=None if shown is None else tuple(shown),
    )


def _pair(values: object, model: str) -> tuple[float, float] | None:
    """Return the two ends of a range of values, None where there is none; raise ModelError for what is no range."""
    if values is None:
        return None
    if isinstance(values, Sequence) and len(values) == 2 and values[0] < values[1]:
        return float(values[0]), float(values[1])
    raise ModelError(
        f"{model}: value_range is {values!r}; it is two numbers, of which the first becomes 0, the second 1"
    )


def place(image: Size, preprocessing: Preprocessing) -> Placement:
    """Return the placement of an upright picture of the given size: resize the shorter side, crop the centre."""
    if preprocessing.squash:
        return Placement(image=image, resized=preprocessing.input, crop=Location(0, 0), input=preprocessing.input)
    short, long = min(image), max(image)
    scaled = int(preprocessing.resize_px * long / short)
    resized = (
        Size(scaled, preprocessing.resize_px) if image.height > image.width else Size(preprocessing.resize_px, scaled)
    )
    size = preprocessing.input
    crop = Location(round((resized.height - size.height) / 2), round((resized.width - size.width) / 2))
    return Placement(image=image, resized=resized, crop=crop, input=size)


def normalise(pixels: PixelBatch, preprocessing: Preprocessing) -> Float[Tensor, "image channel row col"]:
    """Return `(pixel − mean) / std` per channel in float32, in the memory format `channels_last`.

    It is computed on whole rows of pixels: broadcasting over three channels alone is five times slower.
    """
    count, channels, height, width = pixels.shape
    lines = pixels.permute(0, 2, 3, 1).reshape(count * height, width * channels).to(torch.float32, copy=True)
    mean, std = (_line(values, width, pixels.device) for values in (preprocessing.mean, preprocessing.std))
    return lines.sub_(mean).div_(std).view(count, height, width, channels).permute(0, 3, 1, 2)


@lru_cache(32)
def _line(values: tuple[float, ...], width: int, device: torch.device) -> Float[Tensor, " value"]:
    """Return a value of each channel for every pixel of a row."""
    with torch.inference_mode(False):  # others may want gradients through them
        return torch.tensor(values).repeat(width).to(device)


def _decode_jpeg(data: bytes) -> Pixels:
    """Decode a JPEG file as RGB; raise PictureError if its pixels cannot be decoded."""
    try:
        pixels = decode_jpeg(data, mode="RGB")
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition(", ")[2].rstrip(".")
        raise PictureError(f"cannot be decoded: {reason}") from None
    assert isinstance(pixels, Tensor), "of one file it is one"
    return pixels
