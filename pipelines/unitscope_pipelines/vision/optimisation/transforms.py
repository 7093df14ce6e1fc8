"""Transforms: small random movements of pictures, so that what excites a unit does not hang on single pixels.

They are those of Olah et al. 2017.
"""

import math

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F


class Movement(BaseModel):
    """Bounds of the random movements of pictures, each of which moves by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jitter_px: float = 0.0
    """Largest number of pixels down or up, and to either side."""
    jitter_share: float = 1.0
    """Largest jitter as a share of the unit's receptive field: less where a unit sees little."""
    rotate_deg: float = 0.0
    """Largest angle in degrees, to either side."""
    scale: float = 0.0
    """Largest share by which a picture grows or shrinks."""
    least_field_px: int = 0
    """Least receptive field with movements at all: for a smaller one, drawing between pixels would blur too much."""

    def within(self, field_px: int) -> "Movement":
        """Return the bounds for a unit that sees so many pixels."""
        if field_px < self.least_field_px:
            return Movement()
        return self.model_copy(update={"jitter_px": float(min(self.jitter_px, int(self.jitter_share * field_px)))})

    @property
    def is_none(self) -> bool:
        """Return whether pictures stay where they are."""
        return not (self.jitter_px or self.rotate_deg or self.scale)


Pictures = Float[Tensor, "image channel row col"]
"""Pictures as the network takes them."""
Affine = Float[Tensor, "image 2 3"]
"""Maps, one for each picture, from a pixel of the moved picture to where it comes from, in (col, row) pixels from the
middle."""


def draw(movement: Movement, count: int, generator: torch.Generator) -> Affine:
    """Draw random movements: whole pixels of jitter, any angle, any scale within the bounds."""
    jitter, angle, scale = torch.rand(3, count, 2, generator=generator)
    most = int(movement.jitter_px)
    shifts = (jitter * (2 * most + 1)).floor() - most
    angles = (2 * angle[:, 0] - 1) * math.radians(movement.rotate_deg)
    return affine(shifts, angles, 1 + (2 * scale[:, 0] - 1) * movement.scale)


def affine(
    shifts: Float[Tensor, "image 2"], angles: Float[Tensor, " image"], scales: Float[Tensor, " image"]
) -> Affine:
    """Return the movements that shift by (row, col) pixels, then turn by radians and enlarge about the middle.

    Pictures turn anticlockwise.
    """
    cos, sin = torch.cos(angles) / scales, torch.sin(angles) / scales
    down, right = shifts.unbind(1)
    return torch.stack([torch.stack([cos, -sin, -right], 1), torch.stack([sin, cos, -down], 1)], 1)


def moved(pictures: Pictures, movements: Affine) -> Pictures:
    """Return the pictures after their movements, interpolated linearly; what comes from outside is 0."""
    rows, cols = pictures.shape[2:]
    half = torch.tensor([cols / 2, rows / 2], device=pictures.device)
    movements = movements.to(pictures.device)
    turn, shift = movements[:, :, :2], movements[:, :, 2:]
    # grid_sample counts from −1 to 1 along each side
    theta = torch.cat([turn * half[None, None] / half[None, :, None], shift / half[None, :, None]], 2)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
