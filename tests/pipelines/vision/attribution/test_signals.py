"""Signals on their way back from an activation, at a layer between it and the pixels."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unitscope_pipelines.vision.attribution.deconvnet import signals
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.questions import ProjectionMethod

PLACE = Location(2, 3)


@pytest.fixture
def network() -> nn.Sequential:
    """Two convolutions with a ReLU between that works in place, and a third that no test reaches."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 2, 1)
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.mark.parametrize("method", ["gradient", "guided", "deconvnet"])
def test_a_signal_before_a_relu_in_place_is_that_of_the_values_before_it(
    network: nn.Sequential, method: ProjectionMethod
) -> None:
    first, last = measure_layers(network, ["0", "2"], (3, 8, 8), picture_count=0)
    image = torch.randn(1, 3, 8, 8)
    found = signals(network, (last, 1), image, PLACE, method, first)
    before = network[0](image)
    start = torch.zeros(1, 5, 8, 8)
    start[0, 1, PLACE.row, PLACE.col] = 1 if method == "gradient" else network[2](F.relu(before))[0, 1, *PLACE]
    behind = F.conv_transpose2d(start, network[2].weight, padding=1)
    by_hand = {
        "gradient": behind * (before > 0),
        "guided": F.relu(behind) * (before > 0),
        "deconvnet": F.relu(behind),
    }
    torch.testing.assert_close(found, by_hand[method][0])
    assert found.abs().max() > 0


def test_no_signal_reaches_a_later_layer(network: nn.Sequential) -> None:
    first, last = measure_layers(network, ["0", "2"], (3, 8, 8), picture_count=0)
    with pytest.raises(UsageError, match="no signal of 0 reaches 2"):
        signals(network, (first, 1), torch.randn(1, 3, 8, 8), PLACE, "guided", last)
