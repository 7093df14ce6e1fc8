"""Other tools at the same work: for each unit the pictures that excite it most, from files, on one core.

`zennit-crp` is installed for the benchmark only: `pip install --no-deps zennit-crp zennit==0.4.6`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.entries.model import Preprocessing

KEPT = 9


def hook_and_topk(
    model: nn.Module, layers: Sequence[str], files: Sequence[Path], preprocessing: Preprocessing, batch_size: int
) -> int:
    """Forward hooks, the maximum of each map, a running top-k without locations, as baukit does it."""
    best: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad(), record(model, layers, lambda _, output: output.flatten(2).amax(2)) as recorded:
        for numbers, images in _batches(files, preprocessing, batch_size):
            model(images)
            for layer, peaks in recorded.items():
                values, owners = peaks.T, numbers.expand(peaks.shape[1], -1)
                if layer in best:
                    values, owners = torch.cat([best[layer][0], values], 1), torch.cat([best[layer][1], owners], 1)
                top, places = values.topk(min(KEPT, values.shape[1]), dim=1)
                best[layer] = top, owners.gather(1, places)
    return len(files)


def zennit_crp(
    model: nn.Module,
    layers: Sequence[str],
    files: Sequence[Path],
    preprocessing: Preprocessing,
    batch_size: int,
    folder: Path,
) -> int:
    """Its own activation maximisation of channels, without relevance and statistics, which cost it far more."""
    from crp.concepts import ChannelConcept
    from crp.maximization import Maximization

    maxima, concept = Maximization("activation", max_target="max", path=str(folder)), ChannelConcept()
    with torch.no_grad(), record(model, layers, lambda _, output: output) as recorded:
        for numbers, images in _batches(files, preprocessing, batch_size):
            model(images)
            for layer, output in recorded.items():
                targets = np.zeros(len(numbers), np.int64)
                maxima.analyze_layer(output, concept, layer, numbers.numpy(), targets)
    return len(files)


def _batches(files: Sequence[Path], preprocessing: Preprocessing, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers and images, read by Pillow as people do it."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    for first in range(0, len(files), batch_size):
        batch = files[first : first + batch_size]
        pixels = [torch.from_numpy(_pixels(file, preprocessing)).permute(2, 0, 1) for file in batch]
        yield torch.arange(first, first + len(batch)), torch.stack([(one - mean) / std for one in pixels])


def _pixels(file: Path, preprocessing: Preprocessing) -> np.ndarray:
    picture = Image.open(file).convert("RGB")
    scale = preprocessing.resize_px / min(picture.size)
    size = round(picture.width * scale), round(picture.height * scale)
    height, width = preprocessing.input
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.array(picture.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + width, top + height)))
