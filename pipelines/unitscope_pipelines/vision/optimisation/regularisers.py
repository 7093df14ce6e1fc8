"""Regularisers keep optimised pixels natural: pure functions of differences to the mean colour.

They are those of Yosinski et al. 2015.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

from unitscope_pipelines.vision.optimisation.recipes import Regularisation

Values = Float[Tensor, "image channel row col"]
"""Differences to the mean colour, the whole range being 1."""

_BLUR_REACH = 4
"""Number of deviations after which the bell curve of a blur is cut off."""


def regularised(values: Values, uphill: Values, figures: Regularisation, step: int) -> Values:
    """Apply the regularisers of a recipe, in the order of Yosinski's toolbox.

    `uphill` is the gradient of the objective.
    """
    values = decayed(values, figures.decay)
    if figures.blur_every and figures.blur_px and step % figures.blur_every == 0:
        values = blurred(values, figures.blur_px)
    if figures.small_value_percent:
        values = without_small_values(values, figures.small_value_percent)
    if figures.small_norm_percent:
        values = without_small_norms(values, figures.small_norm_percent)
    if figures.small_contribution_percent:
        values = without_small_contributions(values, uphill, figures.small_contribution_percent)
    if figures.contrast is not None:
        values = with_contrast(values, figures.contrast)
    return values


def clipped(values: Values, mean: Float[Tensor, "channel 1 1"]) -> Values:
    """Clip values to the range of pixels, which is 1 wide."""
    return (values + mean).clamp(0, 1) - mean


def decayed(values: Values, share: float) -> Values:
    """Bring values nearer to the mean colour by a share: L2 decay."""
    return values * (1 - share)


def blurred(values: Values, deviation_px: float) -> Values:
    """Convolve values with a bell curve; beyond the border the picture goes on as its mirror image."""
    rows, cols = values.shape[2:]
    reach = int(_BLUR_REACH * deviation_px + 0.5)
    size = [2 * min(reach, cols - 1) + 1, 2 * min(reach, rows - 1) + 1]
    smooth: Values = transform.gaussian_blur(values, size, [deviation_px, deviation_px])
    return smooth


def without_small_values(values: Values, percent: float) -> Values:
    """Set a value to zero where its magnitude is below that of so many percent of its picture's values."""
    return values * ~_below(values.abs(), percent)


def without_small_norms(values: Values, percent: float) -> Values:
    """Set pixels to zero whose norm over channels is below that of so many percent of their picture's."""
    return values * ~_below(values.norm(dim=1, keepdim=True), percent)


def without_small_contributions(values: Values, gradient: Values, percent: float) -> Values:
    """Set pixels to zero that matter less to the objective than so many percent of their picture's.

    A pixel contributes, to first order, the magnitude of Σ value × gradient over its channels.
    """
    return values * ~_below((values * gradient).sum(dim=1, keepdim=True).abs(), percent)


def with_contrast(values: Values, contrast: float) -> Values:
    """Scale each picture so that the root of its mean square is `contrast`: a fixed norm (Erhan et al. 2009)."""
    size = values.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return values * contrast / size.clamp(min=torch.finfo(values.dtype).tiny)


def _below(sizes: Float[Tensor, "image ..."], percent: float) -> Bool[Tensor, "image ..."]:
    """Return which sizes are below that of so many percent of their picture's."""
    limits = torch.quantile(sizes.flatten(1), percent / 100, dim=1)
    return sizes < limits[:, None, None, None]
