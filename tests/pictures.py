"""Pictures made for tests: seeded, small, in every shape a corpus throws at us."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from unitscope_schemas import layout


def blobs(seed: int, height: int = 96, width: int = 96) -> Image.Image:
    """A smooth colourful random picture, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + rng.integers(-12, 13, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def stripes(seed: int, height: int = 96, width: int = 96) -> Image.Image:
    """Coloured stripes of seeded width and direction."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    phase = rows * rng.uniform(0.05, 1.0) + cols * rng.uniform(0.05, 1.0)
    colour = rng.uniform(60, 255, 3)
    return Image.fromarray((np.sin(phase)[..., None] * 0.5 * colour + 0.5 * colour).astype(np.uint8))


def marked(height: int, width: int, box: tuple[int, int, int, int]) -> Image.Image:
    """A grey picture with a saturated red rectangle at (top, left, bottom, right)."""
    pixels = np.full((height, width, 3), 110, np.uint8)
    top, left, bottom, right = box
    pixels[top:bottom, left:right] = (250, 10, 10)
    return Image.fromarray(pixels)


def write_corpus(root: Path, count: int = 40) -> Path:
    """Labelled pictures in two folders; one copied under another name, one cut off in the middle."""
    for number in range(count):
        make, label = (blobs, "blobs") if number % 2 else (stripes, "stripes")
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        size = (96, 128) if number % 5 == 0 else (120, 90) if number % 7 == 0 else (96, 96)
        make(number, *size).save(folder / f"{number:03d}.jpg", quality=92)
    (root / "copies").mkdir()
    (root / "copies" / "same-bytes.jpg").write_bytes((root / "blobs" / "001.jpg").read_bytes())
    data = (root / "stripes" / "000.jpg").read_bytes()
    (root / "stripes" / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (root / "notes.txt").write_text("not a picture")
    return root


def recorded_corpora(*atlases: Path) -> tuple[str, ...]:
    """The folders that some atlases recorded their pictures in, for a server that may show all of these."""
    manifests = [json.loads((atlas / layout.MANIFEST).read_text()) for atlas in atlases]
    return tuple(dict.fromkeys(manifest["corpus"]["root"] for manifest in manifests))
