"""Synthetic pictures, on which networks are measured without a corpus having a say in it."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

COVERAGE = 9
"""Number of discs that lie over a pixel of a synthetic picture, on average."""

Shape = tuple[int, int, int]
"""Channels, rows and columns of the network's input."""


def dead_leaves(
    count: int, input_shape: Shape, generator: np.random.Generator
) -> Float[Tensor, "image channel row col"]:
    """Draw pictures of discs that hide each other, with the edges and the spectrum of photographs.

    Radii follow a power law (Lee, Mumford and Huang 2001); colours are mostly grey. Each picture has
    mean 0 and a deviation of 0.6 to 1.
    """
    channels, rows, cols = input_shape
    row, col = np.arange(rows)[:, None], np.arange(cols)
    largest = max(rows, cols) / 2
    smallest = min(3.0, largest)
    disc_count = math.ceil(COVERAGE * rows * cols / (math.pi * smallest * largest))
    pictures = np.zeros((count, channels, rows, cols), np.float32)
    for picture in pictures:
        radii = 1 / generator.uniform(1 / largest, 1 / smallest, disc_count)
        centres = generator.uniform(size=(disc_count, 2)) * (rows, cols)
        colours = 0.9 * generator.standard_normal((disc_count, 1))
        colours = colours + 0.45 * generator.standard_normal((disc_count, channels))
        for radius, (y, x), colour in zip(radii, centres, colours, strict=True):
            near = np.s_[max(0, int(y - radius)) : int(y + radius) + 2, max(0, int(x - radius)) : int(x + radius) + 2]
            disc = (row[near[0]] - y) ** 2 + (col[near[1]] - x) ** 2 < radius**2
            picture[:, *near][:, disc] = colour[:, None]
        picture -= picture.mean()
        picture *= generator.uniform(0.6, 1.0) / max(float(picture.std()), 1e-6)
    return torch.from_numpy(pictures)
