"""Perceptual hashes of pictures, by which near duplicates are found, and their mean colours."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

ROWS, COLS = 16, 17
"""Rows and columns of the thumbnail that a hash compares."""


def perceptual_hash(
    pixels: UInt8[Tensor, "image channel row col"], shown: Sequence[int] | None = None
) -> tuple[Bool[Tensor, "image 16 16"], UInt8[Tensor, "image 3"]]:
    """Return where a 16 × 17 thumbnail grows brighter to the right by more than one level in 255, and the mean colour.

    Every fourth row will do. Whole numbers below 2²⁴ are summed, so a picture's hash does not depend on the others of
    its batch. The colour is that of the `shown` channels, by default all of them: one or three.
    """
    pixels = pixels[:, :, ::4]
    count, channels, height, width = pixels.shape
    lines = pixels.permute(0, 2, 3, 1).reshape(count, height, width * channels).float()
    rows, cols = _windows(height, ROWS, pixels.device), _windows(width, COLS, pixels.device)
    everything = torch.ones(1, height, device=pixels.device)
    sums = torch.cat([rows, everything]) @ lines
    brightness = (
        sums[:, :ROWS] @ cols.repeat_interleave(channels, 1).T / (rows.sum(1)[:, None] * cols.sum(1) * channels)
    )
    tint = sums[:, ROWS].view(count, width, channels).double().sum(1) / (height * width)
    colour = tint if shown is None else torch.stack([tint[:, channel] for channel in shown], 1)
    return brightness.diff(dim=2) > 1, colour.round().to(torch.uint8).expand(count, 3)


def hash_bytes(brighter: Bool[Tensor, "16 16"]) -> bytes:
    """Return the 256 bits of a picture's hash as 32 bytes."""
    return np.packbits(brighter.numpy()).tobytes()


@lru_cache(16)
def _windows(length: int, count: int, device: torch.device) -> Float[Tensor, "window position"]:
    """Return 1 where a position lies in a window, else 0.

    Windows cover the length; they overlap where it cannot be divided.
    """
    windows = torch.zeros(count, length)
    for number in range(count):
        windows[number, number * length // count : math.ceil((number + 1) * length / count)] = 1
    return windows.to(device)
