"""A corpus for benchmarks: crops of the packaged photographs, in the size and quality of ImageNet's."""

from pathlib import Path

import numpy as np
from PIL import Image

from unitscope.photographs import packaged_photographs
from unitscope_pipelines.vision.images.pictures import open_picture, upright

_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90
_FOLDER_FILES = 1_000


def write_pictures(folder: Path, count: int) -> Path:
    """Seeded crops, mirrored at random, each other than all others; those that are there are kept."""
    photographs = [upright(open_picture(path.read_bytes())) for _, path in packaged_photographs()]
    for number in range(count):
        file = folder / f"{number // _FOLDER_FILES:03d}" / f"{number:06d}.jpg"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            _crop(photographs[number % len(photographs)], number).save(file, quality=_QUALITY)
    return folder


def _crop(photograph: Image.Image, seed: int) -> Image.Image:
    chance = np.random.default_rng(seed)
    whole = min(photograph.width / _WIDTH, photograph.height / _HEIGHT)
    scale = whole * chance.uniform(0.4, 1.0)
    width, height = int(_WIDTH * scale), int(_HEIGHT * scale)
    left = int(chance.integers(photograph.width - width + 1))
    top = int(chance.integers(photograph.height - height + 1))
    crop = photograph.crop((left, top, left + width, top + height)).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if chance.random() < 0.5 else crop
