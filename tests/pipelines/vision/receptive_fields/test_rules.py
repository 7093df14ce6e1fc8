"""The rules of single operations against NaN propagation and gradients."""

import logging
from collections.abc import Callable
from itertools import product
from random import Random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.pipelines.vision.receptive_fields.networks import (
    computed,
)
from tests.pipelines.vision.receptive_fields.oracles import assert_boxes_hold_for_nan, gradient_support
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Box, Location, Size


def test_max_pooling_with_ceil_mode_and_dilation_keeps_to_the_box() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 1), stride=2, dilation=2),
        nn.MaxPool2d(3, 2, padding=1, dilation=2, ceil_mode=True),
    )
    layer = measure_layers(model, ["1"], (3, 23, 18))[0]
    assert_boxes_hold_for_nan(model.eval(), [layer], (3, 23, 18))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
        lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
        lambda x: F.interpolate(x, size=(7, 5), mode="bilinear", align_corners=True),
        lambda x: F.interpolate(x, size=(7, 9), mode="bilinear", antialias=True),
        lambda x: F.interpolate(x, size=(20, 9), mode="bicubic"),
        lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 5, 4), stride=(3, 2), padding=1, dilation=(1, 2)),
        lambda x: F.adaptive_max_pool2d(x, (5, 7)),
        lambda x: F.adaptive_avg_pool2d(x, (5, 7)),
        lambda x: F.pad(x, (3, 1, 0, 2), mode="reflect"),
        lambda x: F.pad(x, (3, 1, 0, 2), mode="replicate"),
        lambda x: F.pad(x, (3, 1, 0, 2), mode="circular"),
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: F.unfold(x, 3).view(len(x), 36, 10, 14),
        lambda x: F.group_norm(x, 2),
        lambda x: F.instance_norm(x),
        lambda x: F.layer_norm(x, x.shape[2:]),
        lambda x: x.roll(3, 3),
        lambda x: x.flip(2)[:, :, ::2],
        lambda x: x[:, :, [0, 0, 5, 2]],
        lambda x: x.softmax(3),
        lambda x: x.cumsum(2),
        lambda x: x - x.mean((2, 3), keepdim=True),
        lambda x: x + x @ x.transpose(2, 3) @ torch.ones(12, 16),
        lambda x: x + F.scaled_dot_product_attention(x, *torch.rand(2, len(x), 4, 5, 16)),
        lambda x: x + F.scaled_dot_product_attention(torch.rand(x.shape), x, torch.rand(x.shape)),
        lambda x: x + F.scaled_dot_product_attention(torch.rand(x.shape), torch.rand(x.shape), x),
        lambda x: torch.stack(x.chunk(2, 1), 2).flatten(1, 2),
        lambda x: torch.where(torch.arange(16) < 5, x, 0.0),
    ],
)
def test_boxes_are_never_too_narrow(function: Callable[[Tensor], Tensor]) -> None:
    model, layer = computed(function)
    assert_boxes_hold_for_nan(model, [layer], (3, 12, 16), tight=False)


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (lambda x: F.pad(x, (3, 1, 0, 2), mode="reflect"), ((3, 3), (1, 1), (-1, -4))),
        (lambda x: F.conv2d(x, torch.ones(6, 2, 3, 3), groups=2, stride=2), ((5, 5), (2, 2), (-1, -1))),
        (lambda x: x.permute(0, 2, 3, 1).mul(2).permute(0, 3, 1, 2).contiguous(), ((3, 3), (1, 1), (-1, -1))),
        (
            lambda x: F.conv2d(torch.cat([x, torch.zeros_like(x)], 1), torch.ones(2, 8, 1, 1)),
            ((3, 3), (1, 1), (-1, -1)),
        ),
    ],
)
def test_geometry_survives_padding_groups_and_data_movement(
    function: Callable[[Tensor], Tensor], place: tuple[Size, Size, Location]
) -> None:
    _, layer = computed(function)
    assert (layer.receptive_field.size, layer.receptive_field.stride, layer.receptive_field.start) == place


def test_an_unknown_operation_counts_as_seeing_all_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, layer = computed(lambda x: torch.cumprod(torch.cumprod(x, 2), 3))
    assert layer.receptive_field.kind == "whole"
    assert [record.message.count("aten.cumprod") for record in caplog.records] == [1]


def test_a_write_through_a_view_is_seen() -> None:
    def write(values: Tensor) -> Tensor:
        values[:, :1] = values.mean()
        return values

    assert computed(write)[1].receptive_field.kind == "whole"


def test_a_write_into_a_part_of_fresh_memory_is_seen_where_it_is_read() -> None:
    def write(values: Tensor) -> Tensor:
        fresh = torch.zeros_like(values)
        fresh[:, 1:3, 2:9] = values[:, 1:3, 2:9]
        return fresh

    model, layer = computed(write)
    assert layer.receptive_field.rows[2:9] == tuple((row - 1, row + 2) for row in range(2, 9))
    assert_boxes_hold_for_nan(model, [layer], (3, 12, 16), tight=False)


TRANSPOSED = [
    (kernel, stride, padding, output_padding, dilation, groups)
    for kernel, stride, padding, output_padding, dilation, groups in product(
        (1, 3), (1, 2, 3), (0, 2), (0, 1), (1, 2, 3), (1, 2)
    )
    if output_padding < max(stride, dilation) and (groups == 1 or kernel == stride)
]


def test_a_transposed_convolution_of_any_form_is_a_map_whose_boxes_hold__entry_31() -> None:
    assert (3, 3, 0, 1, 2, 1) in TRANSPOSED
    checked = 0
    for case in TRANSPOSED:
        kernel, stride, padding, output_padding, dilation, groups = case
        module = nn.ConvTranspose2d(2, 4, kernel, stride, padding, output_padding, groups, True, dilation)
        nn.init.uniform_(module.weight, 0.1, 1.0)
        model = nn.Sequential(nn.Conv2d(1, 2, 2), module)
        image = torch.zeros(1, 1, 5, 6)
        try:
            output = model(image)
        except RuntimeError:  # nothing is left of the map
            continue
        if not any(are_seen(model, (5, 6))):
            continue
        layer = measure_layers(model, ["1"], (1, 5, 6), picture_count=0)[0]
        assert (layer.kind, layer.grid) == ("map", output.shape[2:]), case
        assert seen_boxes(model, (5, 6)) == [
            layer.receptive_field.box_at(location) if seen else None
            for location, seen in zip(locations(layer.grid), are_seen(model, (5, 6)), strict=True)
        ], case
        checked += 1
    assert checked > 40


def locations(grid: Size) -> list[Location]:
    return [Location(row, col) for row in range(grid.height) for col in range(grid.width)]


def reached(model: nn.Module, size: tuple[int, int]) -> Tensor:
    """Return which locations turn NaN by one pixel after the other: (pixel row, pixel col, location)."""
    images = torch.zeros(size[0] * size[1], 1, *size)
    images.flatten(1).fill_diagonal_(torch.nan)
    with torch.no_grad():
        return model(images).isnan().any(1).flatten(1).unflatten(0, size)


def are_seen(model: nn.Module, size: tuple[int, int]) -> list[bool]:
    seen: list[bool] = reached(model, size).any(0).any(0).tolist()
    return seen


def seen_boxes(model: nn.Module, size: tuple[int, int]) -> list[Box | None]:
    """The box of the pixels that reach each location, None if none does."""
    boxes: list[Box | None] = []
    for pixels in reached(model, size).unbind(2):
        rows, cols = pixels.any(1).nonzero().flatten().tolist(), pixels.any(0).nonzero().flatten().tolist()
        boxes.append(Box(rows[0], cols[0], rows[-1] + 1, cols[-1] + 1) if rows else None)
    return boxes


def test_a_value_that_leaves_the_graph_makes_all_that_follows_whole() -> None:
    assert computed(lambda x: x * x.max().item())[1].receptive_field.kind == "whole"


def test_weights_computed_from_the_image_make_a_convolution_whole() -> None:
    assert computed(lambda x: F.conv2d(x, F.adaptive_avg_pool2d(x[:1], 3)))[1].receptive_field.kind == "whole"


@st.composite
def plain_networks(draw: st.DrawFn) -> nn.Sequential:
    """Up to four convolutions, poolings and paddings of odd shapes, all weights positive."""
    modules: list[nn.Module] = []
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    for _ in range(draw(st.integers(1, 4))):
        kind, kernel, stride = draw(st.sampled_from(["conv", "pool", "pad"])), draw(pair), draw(pair)
        if kind == "conv":
            modules.append(
                nn.Conv2d(2, 2, kernel, stride, padding=draw(st.integers(0, 3)), dilation=draw(st.integers(1, 3)))
            )
            nn.init.uniform_(modules[-1].weight, 0.1, 1.0)  # type: ignore[arg-type]
        elif kind == "pool":
            half = (kernel[0] // 2, kernel[1] // 2)
            modules.append(nn.AvgPool2d(kernel, stride, half, ceil_mode=draw(st.booleans())))
        else:
            modules.append(nn.ZeroPad2d(draw(st.tuples(*[st.integers(0, 3)] * 4))))
    return nn.Sequential(*modules, nn.Identity())


@settings(max_examples=60, deadline=None)
@given(plain_networks(), st.integers(9, 24), st.integers(9, 24), st.randoms(use_true_random=False))
def test_gradient_support_with_positive_weights_is_the_box(
    model: nn.Sequential, rows: int, cols: int, random: Random
) -> None:
    try:
        model(torch.zeros(1, 2, rows, cols))
        layer = measure_layers(model, [str(len(model) - 1)], (2, rows, cols), picture_count=0)[0]
    except (RuntimeError, ModelError):  # nothing is left of the map, or nothing but padding
        assume(False)
    for _ in range(4):
        location = Location(random.randrange(layer.grid.height), random.randrange(layer.grid.width))
        support = gradient_support(model, layer, (2, rows, cols), location)
        if support is not None:
            assert support == layer.receptive_field.box_at(location)
