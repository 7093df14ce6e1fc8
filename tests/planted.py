"""An AlexNet whose first units are known: what they must answer follows from their weights."""

from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

from tests.pictures import blobs

RED, BRIGHT, ZEROED, NEGATIVE, CONSTANT, OVERFLOWING, PLAIN, TWIN = range(8)
LAYERS = ("features.0", "features.10", "classifier.6")
TAP = (5, 5)
"""The middle of the 11 × 11 kernel."""


def planted_weights(path: Path) -> Path:
    """A state dict whose `features.0` has the planted units above; the rest is random, seeded."""
    torch.manual_seed(0)
    state = torchvision.models.alexnet(weights=None).state_dict()
    weight, bias = state["features.0.weight"], state["features.0.bias"]
    bias[:] = 0
    weight[RED] = torch.tensor([1.0, -1.0, -1.0])[:, None, None] / 121
    weight[BRIGHT] = 1 / 363
    weight[ZEROED] = 0
    weight[NEGATIVE] = weight[PLAIN] / 10
    bias[NEGATIVE] = -100
    weight[CONSTANT] = 0
    bias[CONSTANT] = 2
    weight[OVERFLOWING] = 0
    weight[OVERFLOWING, 0, *TAP] = 2e38
    weight[TWIN] = weight[PLAIN]
    torch.save(state, path)
    return path


def planted_corpus(root: Path) -> Path:
    """Twenty pictures of middling brightness and one that is white, on which one unit overflows."""
    root.mkdir()
    for number in range(20):
        pixels = np.asarray(blobs(number), np.float32) * 0.7
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number:02d}.png")
    Image.new("RGB", (80, 80), (255, 255, 255)).save(root / "white.png")
    return root
