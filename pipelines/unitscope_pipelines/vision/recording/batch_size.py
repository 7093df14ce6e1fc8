"""How many pictures a forward takes at once on a GPU: few leave it idle between kernels, many do not fit its memory."""

import time
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from unitscope_pipelines.vision.images.preprocessing import normalise
from unitscope_pipelines.vision.recording.arithmetic import arithmetic
from unitscope_schemas.entries.model import Precision, Preprocessing
from unitscope_schemas.errors import ModelError

SIZES = (32, 64, 128, 256, 512)
"""Batch sizes that are tried on a GPU."""
_SECONDS = 0.5
"""Length of each measurement, after forwards that choose kernels."""
_GAIN = 0.03
"""Gain in rate for which a larger batch is not worth its memory."""


def forward_rates(
    module: nn.Module, preprocessing: Preprocessing, precision: Precision, device: torch.device, sizes: Sequence[int]
) -> dict[int, float]:
    """Return the pictures a second of forwards by batch size, smallest first, up to the first that has no memory."""
    rates: dict[int, float] = {}
    channels, height, width = len(preprocessing.mean), preprocessing.input.height, preprocessing.input.width
    for size in sizes:
        pixels = torch.full((size, height, width, channels), 128, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
        try:
            with torch.inference_mode(), arithmetic(device, precision):
                rates[size] = _rate(module, normalise(pixels, preprocessing))
        except torch.OutOfMemoryError:
            break
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return rates


def best_size(rates: Mapping[int, float]) -> int:
    """Return the smallest size that is about as fast as any; raises ModelError where none fits the memory."""
    if not rates:
        raise ModelError(f"a batch of {SIZES[0]} does not fit the memory of the device; use a smaller --batch-size")
    return next(size for size, rate in sorted(rates.items()) if rate >= (1 - _GAIN) * max(rates.values()))


def _rate(module: nn.Module, batch: torch.Tensor) -> float:
    def forward() -> None:
        module(batch)
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)

    for _ in range(3):
        forward()
    count, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < _SECONDS:
        forward()
        count += len(batch)
    return count / seconds
