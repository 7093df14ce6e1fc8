"""Theoretical receptive fields of whole networks against NaN propagation and published sizes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.pipelines.vision.receptive_fields.networks import FAST, INPUT, SLOW, computed, fields, measured, network
from tests.pipelines.vision.receptive_fields.oracles import assert_boxes_hold_for_nan
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.geometry import Location


class Squeezed(nn.Module):
    """A convolution gated by its own mean, as in squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        values = self.conv(image)
        return values * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(values, 1)))


class Branched(nn.Module):
    """Branches of 3 and 7 rows, put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(3, 2, 3, padding=1)
        self.wide = nn.Conv2d(3, 5, 7, padding=3)
        self.joined = nn.Identity()
        self.after = nn.Conv2d(7, 7, 3, padding=1, groups=7)

    def forward(self, image: Tensor) -> Tensor:
        return self.after(self.joined(torch.cat([self.narrow(image), self.wide(image)], dim=1)))


class Twice(nn.Module):
    """One convolution, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(self.conv(image).relu_())


@pytest.mark.parametrize("spec", [*FAST, *(pytest.param(spec, marks=pytest.mark.long) for spec in SLOW)])
def test_a_location_turns_nan_exactly_if_a_pixel_row_or_column_of_its_box_is_nan(spec: str) -> None:
    assert_boxes_hold_for_nan(network(spec).module, measured(spec), INPUT)


@pytest.mark.parametrize(
    ("spec", "name", "size_px", "stride_px"),
    [
        ("torchvision:alexnet", "features.10", 163, 16),
        ("torchvision:vgg16", "features.28", 196, 16),
        ("torchvision:resnet18", "layer4.1", 435, 32),
        # 427 with the stride on the 3 × 3 convolution, as torchvision has it; 483 with He et al.'s on the 1 × 1
        ("torchvision:resnet50", "layer4.2", 427, 32),
        ("torchvision:mobilenet_v2", "features.18", 491, 32),
    ],
)
def test_unclipped_sizes_are_the_published_ones(spec: str, name: str, size_px: int, stride_px: int) -> None:
    layer = next(layer for layer in measured(spec) if layer.name == name)
    assert layer.receptive_field.size == (size_px, size_px)
    assert layer.receptive_field.stride == (stride_px, stride_px)
    assert layer.receptive_field.kind == "local"


def test_a_box_at_the_border_states_its_padding() -> None:
    layer = next(layer for layer in measured("torchvision:alexnet") if layer.name == "features.10")
    assert layer.receptive_field.start == (-66, -66)
    assert layer.receptive_field.box_at(Location(0, 0)) == (0, 0, 97, 97)
    assert layer.receptive_field.padding_at(Location(0, 0)) == (66, 66, 0, 0)
    assert layer.receptive_field.padding_at(Location(12, 12)) == (0, 0, 65, 65)


def test_a_box_lies_inside_the_unclipped_one() -> None:
    for layer in measured("efficientnet-lite:0"):
        place = layer.receptive_field
        assert place.start is not None and place.stride is not None and place.size is not None
        for row, (first, end) in enumerate(place.rows):
            start = place.start.row + row * place.stride.height
            assert max(0, start) == first and end == min(start + place.size.height, 224)


def test_squeeze_and_excitation_sees_the_whole_input() -> None:
    model = Squeezed()
    conv, gate, whole = fields(model, ["conv", "gate", ""], (3, 20, 30))
    assert (conv.kind, gate.kind, whole.kind) == ("local", "whole", "whole")
    assert whole.size is whole.stride is whole.start is None
    assert whole.box_at(Location(3, 4)) == (0, 0, 20, 30)
    assert len(whole.rows) == 20 and len(whole.cols) == 30


def test_a_padded_convolution_behind_a_whole_layer_stays_whole() -> None:
    _, layer = computed(
        lambda x: F.conv2d(x + x.mean((2, 3), keepdim=True), torch.ones(2, 4, 3, 3), padding=24, dilation=24)
    )
    assert layer.receptive_field.kind == "whole"


def test_a_module_called_twice_has_two_fields() -> None:
    first, second, plain = measure_layers(Twice(), ["conv@0", "conv@1"], (3, 9, 9)) + measure_layers(
        Twice(), ["conv"], (3, 9, 9)
    )
    assert first.receptive_field.size == plain.receptive_field.size == (3, 3)
    assert second.receptive_field.size == (5, 5)


def test_joined_branches_have_the_hull_of_their_boxes() -> None:
    joined, after = fields(Branched(), ["joined", "after"], (3, 20, 20))
    assert joined.size == (7, 7) and joined.start == (-3, -3)
    assert after.size == (9, 9)


def test_flattened_maps_and_linear_layers_see_the_whole_input() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 8 * 6, 5))
    conv, linear = measure_layers(model, ["0", "2"], (3, 10, 8))
    assert conv.grid == (8, 6) and conv.kind == "map"
    assert (linear.kind, linear.grid, linear.units) == ("vector", (1, 1), 5)
    assert linear.receptive_field.kind == "whole"
    assert linear.receptive_field.box_at(Location(0, 0)) == (0, 0, 10, 8)
    assert linear.receptive_field.effective == (10, 8)


def test_a_non_square_input_has_a_non_square_grid() -> None:
    module = network("torchvision:resnet18").module
    layer = measure_layers(module, ["layer3.0"], (3, 96, 160))[0]
    assert layer.grid == (6, 10) and layer.receptive_field.size == (147, 147)
    assert_boxes_hold_for_nan(module, [layer], (3, 96, 160))


def test_a_one_channel_input_is_measured() -> None:
    layer = measure_layers(nn.Sequential(nn.Conv2d(1, 4, 5, stride=2)), ["0"], (1, 28, 28))[0]
    assert layer.units == 4 and layer.grid == (12, 12)
    assert layer.receptive_field.size == (5, 5) and layer.receptive_field.stride == (2, 2)
