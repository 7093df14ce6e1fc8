"""Preprocessing from a file's bytes to the network's input, with the placement that leads back to the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from unitscope_pipelines.vision.images.pictures import MOST_PIXELS, decoded, file_notes, open_picture, orientation
from unitscope_schemas.errors import ModelError, PictureError, listing
from unitscope_schemas.geometry import Location, Placement, Size
from unitscope_schemas.manifest import Preprocessing

Pixels = UInt8[Tensor, "channel row col"]
"""Values from 0 to 255 of one picture."""

_DATA_CONFIG: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
"""Data config of ImageNet, in timm's words."""


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
    picture = open_picture(data, most_pixels=most_pixels)
    if picture.format == "JPEG" and picture.mode in ("RGB", "L") and orientation(picture) == 1:
        pixels, notes = _decode_jpeg(data), file_notes(picture)
    else:
        whole, notes = decoded(picture)
        pixels = torch.from_numpy(np.array(whole)).permute(2, 0, 1)
    if preprocessing.channels == 1:
        pixels = transform.rgb_to_grayscale(pixels)
    placement = place(Size(pixels.shape[1], pixels.shape[2]), preprocessing)
    resized = transform.resize(
        pixels, list(placement.resized), InterpolationMode(preprocessing.interpolation), antialias=True
    )
    top, left = placement.crop
    height, width = placement.input
    seen = resized[:, top : top + height, left : left + width]
    return Prepared(
        seen.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        placement,
        picture.format or "",
        picture.mode,
        notes,
    )


def from_data_config(config: Mapping[str, object], model: str) -> Preprocessing:
    """Return the preprocessing that a data config in timm's words asks for.

    Its keys are `input_size` (channel, row, col), `crop_pct`, `crop_mode`, `interpolation`, `mean` and `std`, the last
    two of values from 0 to 1; what is left out is as for ImageNet. Raises ModelError for what cannot be done to a
    picture here.
    """
    unknown = [key for key in config if key not in _DATA_CONFIG]
    if unknown:
        near = get_close_matches(str(unknown[0]), _DATA_CONFIG, n=1) or list(_DATA_CONFIG)
        raise ModelError(f"{model}: unknown key {unknown[0]!r} in its data config; did you mean {listing(near)}?")
    wanted: dict[str, Any] = {**_DATA_CONFIG, **config}
    channels, height, width = wanted["input_size"]
    if channels not in (1, 3):
        raise ModelError(f"{model} takes {channels} channels; pictures have 3, or 1 as grey values")
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
    return Preprocessing(
        # an input that is not square is cut from a picture that fills it in both directions
        resize_px=int(max(height, width) / wanted["crop_pct"]),
        input=Size(height, width),
        interpolation=wanted["interpolation"],
        mean=mean * (channels // len(mean)),
        std=std * (channels // len(std)),
    )


def place(image: Size, preprocessing: Preprocessing) -> Placement:
    """Return the placement of an upright picture of the given size: resize the shorter side, crop the centre."""
    short, long = min(image), max(image)
    scaled = int(preprocessing.resize_px * long / short)
    resized = (
        Size(scaled, preprocessing.resize_px) if image.height > image.width else Size(preprocessing.resize_px, scaled)
    )
    size = preprocessing.input
    crop = Location(round((resized.height - size.height) / 2), round((resized.width - size.width) / 2))
    return Placement(image=image, resized=resized, crop=crop, input=size)


def normalise(
    pixels: UInt8[Tensor, "image channel row col"], preprocessing: Preprocessing
) -> Float[Tensor, "image channel row col"]:
    """Return `(pixel − mean) / std` per channel in float32, in the memory format `channels_last`.

    It is computed on whole rows of pixels: broadcasting over three channels alone is five times slower.
    """
    count, channels, height, width = pixels.shape
    lines = pixels.permute(0, 2, 3, 1).reshape(count * height, width * channels).float()
    mean = torch.tensor(preprocessing.mean, device=pixels.device).repeat(width)
    std = torch.tensor(preprocessing.std, device=pixels.device).repeat(width)
    return lines.sub_(mean).div_(std).view(count, height, width, channels).permute(0, 3, 1, 2)


def _decode_jpeg(data: bytes) -> Pixels:
    """Decode a JPEG file as RGB; raise PictureError if its pixels cannot be decoded."""
    raw = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    try:
        pixels: Pixels = decode_jpeg(raw, mode=ImageReadMode.RGB)
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition(", ")[2]
        raise PictureError(f"cannot be decoded: {reason}") from None
    return pixels
