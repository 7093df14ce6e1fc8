"""A small network with planted channels, its copy with channels in another order, and pictures labelled by colour."""

from pathlib import Path

import numpy as np
from PIL import Image

from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index

RED, GREEN, PLAIN, TWIN, ZEROED = range(5)
UNITS = 40
COLOURED, GREY = 20, 80
"""Pictures of each colour, and grey ones."""
_SOURCE = """
import torch
from torch import nn

INPUT = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": 0.5, "std": 0.25}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.head = nn.Conv2d(3, 40, 3, stride=2), nn.ReLU(), nn.Conv2d(40, 6, 1)
        with torch.no_grad():
            weight, bias = self.conv.weight, self.conv.bias
            weight[0] = torch.tensor([2.0, -1.0, -1.0])[:, None, None] / 18
            weight[1] = torch.tensor([-1.0, 2.0, -1.0])[:, None, None] / 18
            weight[3] = weight[2]
            weight[4] = 0
            bias[3], bias[0], bias[1], bias[4] = bias[2], 0, 0, 0

    def forward(self, image):
        return self.head(self.relu(self.conv(image)))


def planted():
    return Small(), INPUT


def permuted():
    network, order = Small(), torch.tensor(ORDER)
    with torch.no_grad():
        for tensor in (network.conv.weight, network.conv.bias):
            tensor.copy_(tensor[order].clone())
        network.head.weight.copy_(network.head.weight[:, order].clone())
    return network, INPUT
"""
ORDER = np.random.default_rng(1).permutation(UNITS).tolist()
"""Unit n of the permuted network is unit ORDER[n] of the planted one."""


def write_network(folder: Path) -> Path:
    """The file with both factories."""
    path = folder / "small_network.py"
    path.write_text(_SOURCE.replace("ORDER", str(ORDER)))
    return path


def write_pictures(root: Path, brightest: int = 120) -> Path:
    """Pictures in the folders red, green and grey, no two alike."""
    for label, count in (("red", COLOURED), ("green", COLOURED), ("grey", GREY)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            chance = np.random.default_rng([number, len(label)])
            brightness = chance.integers(0, brightest, (32, 32, 1)) + chance.integers(0, 100)
            tint = np.array({"red": (1, 0.4, 0.4), "green": (0.4, 1, 0.4), "grey": (1, 1, 1)}[label])
            pixels = (brightness * tint + 20).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number:03d}.png")
    return root


def write_atlas(corpus: Path, atlas: Path, model: str, **options: object) -> Path:
    """An atlas of both convolutions of one of the networks, `file:…:planted` or `file:…:permuted`."""
    settings = {"layers": ("conv", "head"), "batch_size": 32, "workers": 1, "trust_code": True, **options}
    index(IndexConfig(corpus=str(corpus), atlas=str(atlas), model=model, **settings), lambda _: None)
    return atlas
