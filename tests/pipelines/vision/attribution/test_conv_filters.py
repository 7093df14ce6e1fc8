"""Filters of layers as pictures, pixel for pixel."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from unitscope_pipelines.vision.attribution.conv_filters import filter_picture, read_filters
from unitscope_schemas.errors import UsageError


def _levels(weights: torch.Tensor) -> np.ndarray:
    """The formula, weight by weight: 128 + 127 × weight / largest magnitude."""
    scale = float(weights.abs().max())
    return np.array([round(128 + 127 * float(weight) / scale) for weight in weights.flatten()], np.uint8)


def test_colour_filters_equal_the_scaled_weights_pixel_for_pixel() -> None:
    torch.manual_seed(0)
    model = torchvision.models.alexnet(weights=None).eval()
    found = read_filters(model, (3, 224, 224))
    assert found.layer == "features.0"
    assert found.weights.shape == (64, 3, 11, 11)
    for channel in (0, 63):
        weights = model.features[0].weight[channel].detach()
        shown = filter_picture(found.weights[channel])
        assert shown.scale == pytest.approx(float(weights.abs().max()))
        assert shown.picture.mode == "RGB"
        assert (np.asarray(shown.picture).transpose(2, 0, 1).ravel() == _levels(weights)).all()


def test_one_channel_gives_a_grey_picture_and_a_linear_layer_is_laid_out_as_pixels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6 * 5, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    found = read_filters(model, (1, 6, 5))
    assert found.layer == "1"
    shown = filter_picture(found.weights[3])
    assert shown.picture.size == (5, 6)
    assert (np.asarray(shown.picture).ravel() == _levels(model[1].weight[3].detach())).all()


def test_many_channels_give_one_grey_picture_each_in_one_scale() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(5, 2, (3, 4))).eval()
    found = read_filters(model, (5, 9, 9))
    weights = model[0].weight[1].detach()
    pixels = np.asarray(filter_picture(found.weights[1]).picture)
    expected = _levels(weights).reshape(5, 3, 4)
    assert pixels.shape == (2 * 4 - 1, 3 * 5 - 1)
    for channel in range(5):
        row, col = divmod(channel, 3)
        assert (pixels[4 * row : 4 * row + 3, 5 * col : 5 * col + 4] == expected[channel]).all()
    assert (pixels[3] == 255).all()


def test_a_patch_embedding_is_the_first_layer_of_a_transformer() -> None:
    model = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32).eval()
    assert read_filters(model, (3, 32, 32)).layer == "conv_proj"
    assert read_filters(model, (3, 32, 32)).weights.shape == (16, 3, 8, 8)


def test_a_layer_without_filters_is_refused_with_those_that_have_some() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    with pytest.raises(UsageError, match=r"layer '1' has no filters .* these have: 0"):
        read_filters(model, (3, 8, 8), "1")


def test_filters_leave_no_hook() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)).eval()
    read_filters(model, (3, 8, 8))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert isinstance(filter_picture(read_filters(model, (3, 8, 8)).weights[0]).picture, Image.Image)


def test_a_filter_far_below_the_layers_largest_weight_is_dim() -> None:
    """In its own scale a dead filter is dust at full contrast; from a hundredth of the largest on nothing changes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3)).eval()
    weight = model[0].weight.data
    weight[0] = 2 * torch.rand_like(weight[0]) - 1
    weight[0, 0, 0, 0] = 1.0
    for channel, scale in ((1, 1e-9), (2, 1e-4), (3, 0.0), (4, 0.02)):
        weight[channel] = scale * weight[0]
    found = read_filters(model, (3, 8, 8))
    assert found.largest == 1.0
    swings = [np.abs(np.asarray(found.picture(channel).picture).astype(int) - 128).max() for channel in range(5)]
    assert swings == [127, 0, 1, 0, 127]
    scales = [found.picture(channel).scale for channel in range(5)]
    assert scales == pytest.approx([1, 0.01, 0.01, 0.01, 0.02])


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_layer_without_any_weight_is_all_grey(channels: int) -> None:
    model = nn.Sequential(nn.Conv2d(channels, 2, 3)).eval()
    model[0].weight.data.zero_()
    pixels = np.asarray(read_filters(model, (channels, 8, 8)).picture(1).picture)
    assert set(np.unique(pixels)) <= {128, 255}
    assert (pixels == 128).any()
