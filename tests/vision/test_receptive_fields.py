"""Receptive fields against oracles that share no code with them: NaN propagation, gradients, published sizes."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from skimage import data
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

from unitscope_pipelines.vision.models.models import VisionModel, choose_layers, load_model
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.recording import record, split_call
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Box, Location, ReceptiveField, Size
from unitscope_schemas.units import LayerSpec

INPUT = (3, 224, 224)

Shape = tuple[int, int, int]


# --- oracles -----------------------------------------------------------------------------------------------------


class _ReachedError(Exception):
    """Ends a forward at the layer that is looked at."""


def nan_maps(model: nn.Module, layers: Sequence[LayerSpec], images: Tensor) -> dict[str, Tensor]:
    """Where each layer's units are NaN (image, row, col), without running what comes behind the last of them."""
    found: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()
    wanted: dict[str, list[LayerSpec]] = {}
    for layer in layers:
        wanted.setdefault(split_call(layer.name)[0], []).append(layer)

    def look(path: str, output: Tensor | tuple[Tensor, ...]) -> None:
        values = output[0] if isinstance(output, tuple) else output
        for layer in wanted[path]:
            if split_call(layer.name)[1] == calls[path]:
                found[layer.name] = as_map(values, layer).isnan().any(1)
        calls[path] += 1
        if len(found) == len(layers):
            raise _ReachedError

    modules = dict(model.named_modules())
    handles = [
        modules[path].register_forward_hook(lambda _module, _inputs, output, path=path: look(path, output))
        for path in wanted
    ]
    try:
        with torch.no_grad(), suppress(_ReachedError):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


Probe = tuple[frozenset[Box], bool]
"""Boxes, and whether all around them is filled with NaN, or they are."""


def nan_probes(boxes: dict[Location, Box], size: Size) -> Iterator[tuple[Probe, set[Location]]]:
    """What to fill with NaN, and locations that must stay numbers if it is the outside, else must turn NaN.

    The edges of boxes that lie apart are filled in one picture, otherwise each row and column of the input alone.
    """
    for location, box in boxes.items():
        yield (frozenset([box]), True), {location}
    apart = all(not _meet(one, other) for one, other in combinations(boxes.values(), 2))
    for side in range(4):
        edges = {location: _edge(box, side, box if apart else Box(0, 0, *size)) for location, box in boxes.items()}
        if apart:
            yield (frozenset(edges.values()), False), set(edges)
        else:
            yield from (((frozenset([edge]), False), {location}) for location, edge in edges.items())


def _edge(box: Box, side: int, within: Box) -> Box:
    """The first or last row (sides 0 and 2) or column (1 and 3) of a box, as long as `within`."""
    top, left, bottom, right = within
    place = box[side] - (side > 1)
    return Box(place, left, place + 1, right) if side % 2 == 0 else Box(top, place, bottom, place + 1)


def _meet(one: Box, other: Box) -> bool:
    return one.top < other.bottom and other.top < one.bottom and one.left < other.right and other.left < one.right


def assert_boxes_hold_for_nan(
    model: nn.Module, layers: Sequence[LayerSpec], input_shape: Shape, tight: bool = True
) -> None:
    """NaN in the first or last row or column of a location's box reaches it, NaN around the box does not.

    Checked at the corners and the centre of each layer's grid; unless `tight`, a box may be too wide. Layers, named
    in the order of the forward, share the probes of equal boxes, and each probe runs to the last layer that it is for.
    """
    expected: dict[Probe, dict[int, set[Location]]] = {}
    for number, layer in enumerate(layers):
        last = Location(layer.grid.height - 1, layer.grid.width - 1)
        corners = [Location(row, col) for row in (0, last.row) for col in (0, last.col)]
        checked = [*corners, Location(layer.grid.height // 2, layer.grid.width // 2)]
        boxes = {location: layer.receptive_field.box_at(location) for location in checked}
        for probe, locations in nan_probes(boxes, Size(*input_shape[1:])):
            if tight or probe[1]:
                expected.setdefault(probe, {}).setdefault(number, set()).update(locations)
    probes = sorted(expected, key=lambda probe: max(expected[probe]))
    for first in range(0, len(probes), 4):
        batch = probes[first : first + 4]
        images = torch.randn(len(batch), *input_shape)
        for image, (filled, outside) in zip(images, batch, strict=True):
            inside = torch.zeros(input_shape[1:], dtype=torch.bool)
            for top, left, bottom, right in filled:
                inside[top:bottom, left:right] = True
            image[:, inside != outside] = torch.nan
        looked_at = sorted({number for probe in batch for number in expected[probe]})
        maps = nan_maps(model, [layers[number] for number in looked_at], images)
        for place, probe in enumerate(batch):
            for number, locations in expected[probe].items():
                for location in locations:
                    reached = bool(maps[layers[number].name][place][location])
                    assert reached != probe[1], f"{layers[number].name} {location}: {probe}"


def gradient_support(model: nn.Module, layer: LayerSpec, input_shape: Shape, location: Location) -> Box | None:
    """The smallest box around the input pixels that have a gradient."""
    image = torch.rand(1, *input_shape).requires_grad_()
    with record(model, [layer.name], lambda _, output: output) as outputs:
        model(image)
    as_map(outputs[layer.name], layer)[0, :, location.row, location.col].sum().backward()
    assert image.grad is not None
    touched = image.grad[0].abs().sum(0) > 0
    rows, cols = touched.any(1).nonzero(), touched.any(0).nonzero()
    if not len(rows):
        return None
    return Box(int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)


# --- models ------------------------------------------------------------------------------------------------------


FAST = ("torchvision:alexnet", "torchvision:resnet18", "torchvision:mobilenet_v2", "efficientnet-lite:0")
SLOW = ("torchvision:vgg16", "torchvision:resnet50", "torchvision:convnext_tiny", "torchvision:vit_b_16")


@cache
def network(spec: str) -> VisionModel:
    return load_model(spec, "random:0")


@cache
def measured(spec: str, picture_count: int = 0) -> list[LayerSpec]:
    model = network(spec)
    return measure_layers(model.module, choose_layers(model), INPUT, picture_count=picture_count)


def fields(model: nn.Module, names: Sequence[str], input_shape: Shape) -> list[ReceptiveField]:
    return [layer.receptive_field for layer in measure_layers(model, names, input_shape)]


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


class Computed(nn.Module):
    """Any function of a convolution's output, as a layer."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.function = function
        self.layer = nn.Identity()

    def forward(self, image: Tensor) -> object:
        return self.layer(self.function(self.conv(image)))


def computed(function: Callable[[Tensor], object], input_shape: Shape = (3, 12, 16)) -> tuple[nn.Module, LayerSpec]:
    model = Computed(function).eval()
    return model, measure_layers(model, ["layer"], input_shape)[0]


# --- the theoretical field ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [*FAST, *(pytest.param(spec, marks=pytest.mark.slow) for spec in SLOW)])
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


def test_a_box_lies_inside_the_unclipped_one() -> None:
    for layer in measured("efficientnet-lite:0"):
        place = layer.receptive_field
        assert place.start is not None and place.stride is not None and place.size is not None
        for row, (first, end) in enumerate(place.rows):
            start = place.start.row + row * place.stride.height
            assert max(0, start) == first and end == min(start + place.size.height, 224)


def test_max_pooling_with_ceil_mode_and_dilation_keeps_to_the_box() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 1), stride=2, dilation=2),
        nn.MaxPool2d(3, 2, padding=1, dilation=2, ceil_mode=True),
    )
    layer = measure_layers(model, ["1"], (3, 23, 18))[0]
    assert_boxes_hold_for_nan(model.eval(), [layer], (3, 23, 18))


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


def test_a_write_into_fresh_memory_is_seen() -> None:
    def write(values: Tensor) -> Tensor:
        fresh = torch.zeros_like(values)
        fresh[:, 1:3] = values[:, 1:3]
        return fresh

    assert computed(write)[1].receptive_field.kind == "whole"


def test_a_value_that_leaves_the_graph_makes_all_that_follows_whole() -> None:
    assert computed(lambda x: x * x.max().item())[1].receptive_field.kind == "whole"


def test_weights_computed_from_the_image_make_a_convolution_whole() -> None:
    assert computed(lambda x: F.conv2d(x, F.adaptive_avg_pool2d(x[:1], 3)))[1].receptive_field.kind == "whole"


# --- kinds of layers ---------------------------------------------------------------------------------------------


def test_tokens_lie_on_the_patch_grid_behind_their_class_token() -> None:
    layer = measured("torchvision:vit_b_16")[0]
    assert (layer.kind, layer.units, layer.grid, layer.prefix_tokens) == ("tokens", 768, (14, 14), 1)
    assert layer.receptive_field.kind == "whole" and layer.receptive_field.size is None
    before = measure_layers(network("torchvision:vit_b_16").module, ["encoder.dropout"], INPUT, picture_count=0)[0]
    assert before.receptive_field.size == before.receptive_field.stride == (16, 16)
    assert before.receptive_field.box_at(Location(1, 13)) == (16, 208, 32, 224)


def test_tokens_without_a_patch_grid_lie_in_one_row() -> None:
    layer = computed(lambda x: x.flatten(2).transpose(1, 2)[:, :50])[1]
    assert (layer.kind, layer.units, layer.grid, layer.prefix_tokens) == ("tokens", 4, (1, 50), 0)


def test_the_first_tensor_of_a_tuple_is_the_layer() -> None:
    layer = computed(lambda x: (x[:, :2], x))[1]
    assert layer.units == 2


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("nothing", lambda x: x, "no layer 'nothing'"),
        ("conv@1", lambda x: x, "'conv@1' was not called"),
        ("layer", lambda x: x[None], r"puts out shape \(1, 4, 12, 16\)"),
        ("layer", lambda x: "text", "str, not a tensor"),
        ("layer", lambda x: torch.ones(1, 2, 3, 3), "does not depend on the input"),
    ],
)
def test_a_layer_that_cannot_be_measured_is_named(
    name: str, function: Callable[[Tensor], object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        measure_layers(Computed(function), [name], (3, 12, 16))


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Linear(10, 2))
    model[1].eval()
    model[0].bias.requires_grad_(False)  # type: ignore[union-attr]

    def state() -> list[object]:
        return [
            (module.training, len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()
        ] + [(parameter.requires_grad, parameter.grad is None) for parameter in model.parameters()]

    before, weights = state(), {key: value.clone() for key, value in model.state_dict().items()}
    measure_layers(model, ["0", "2"], (3, 12, 12))
    assert state() == before
    with pytest.raises(RuntimeError):
        measure_layers(model, ["0"], (3, 2, 2))
    assert state() == before
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


# --- the effective field -----------------------------------------------------------------------------------------


def photographs() -> Tensor:
    """Photographs at the default model's input."""
    pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), *load_sample_images().images]
    images = [torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() for picture in pictures]
    return (
        torch.cat([F.interpolate(image, size=(224, 224), mode="bilinear", antialias=True) for image in images])
        .sub(127)
        .div(128)
    )


@pytest.mark.parametrize(
    ("spec", "weights", "names"),
    [
        ("efficientnet-lite:0", "default", ["_blocks.2", "_blocks.6", "_blocks.10", "_blocks.13", "_blocks.15"]),
        ("torchvision:resnet18", "random:0", ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
        ("torchvision:alexnet", "random:0", ["features.2", "features.12"]),
    ],
)
def test_the_effective_box_holds_nine_tenths_of_the_energy_on_photographs(
    spec: str, weights: str, names: list[str]
) -> None:
    module = load_model(spec, weights).module
    layers = measure_layers(module, names, INPUT)
    images, chance = photographs().requires_grad_(), torch.Generator().manual_seed(0)
    with record(module, [layer.name for layer in layers], lambda _, output: output) as outputs:
        module(images)
    shares = np.empty((len(layers), 6, len(images)))
    for place in np.ndindex(shares.shape[:2]):
        layer = layers[place[0]]
        units = torch.randint(layer.units, (len(images),), generator=chance)
        activation, peaks = outputs[layer.name][torch.arange(len(images)), units].flatten(1).max(1)
        (gradient,) = torch.autograd.grad(activation.sum(), images, retain_graph=True)
        for image, energy in enumerate(gradient.square().sum(1)):
            top, left, bottom, right = layer.receptive_field.effective_box_at(layer.location(int(peaks[image])))
            shares[*place, image] = energy[top:bottom, left:right].sum() / energy.sum() if energy.any() else 1
    assert shares.min() >= 0.9


@pytest.mark.parametrize("spec", FAST)
def test_the_effective_box_is_never_larger_than_the_theoretical_one(spec: str) -> None:
    for layer in measured(spec, picture_count=2):
        place = layer.receptive_field
        if place.size is not None:
            assert 0 < place.effective.height <= place.size.height
            assert 0 < place.effective.width <= place.size.width
        for location in (Location(0, 0), Location(layer.grid.height // 2, layer.grid.width - 1)):
            theoretical, effective = place.box_at(location), place.effective_box_at(location)
            assert effective.inside(place.input)
            assert theoretical.top <= effective.top and theoretical.left <= effective.left
            assert effective.bottom <= theoretical.bottom and effective.right <= theoretical.right


def test_the_effective_field_of_deep_layers_is_much_smaller_than_the_theoretical_one() -> None:
    place = measured("torchvision:resnet18", picture_count=2)[-1].receptive_field
    assert place.size is not None and place.effective.height < place.size.height / 1.5


def test_the_effective_field_follows_the_shape_of_the_field() -> None:
    place = fields(nn.Sequential(nn.Conv2d(3, 8, (9, 3))), ["0"], (3, 40, 40))[0]
    assert place.size == (9, 3) and place.effective.height > place.effective.width


def test_a_layer_without_gradient_keeps_its_theoretical_size() -> None:
    place = computed(lambda x: (x > 0).float())[1].receptive_field
    assert place.size == place.effective == (3, 3)


def test_an_in_place_module_behind_a_layer_changes_nothing() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 9, padding=4)
    with torch.no_grad():
        assert conv.bias is not None
        conv.bias -= 100.0
    alone, followed = (fields(nn.Sequential(conv, *behind), ["0"], (3, 32, 32))[0] for behind in ([], [nn.ReLU(True)]))
    assert alone == followed


def test_the_measurement_repeats_and_does_not_depend_on_other_layers() -> None:
    module = network("torchvision:alexnet").module
    first = measure_layers(module, ["features.3", "features.8"], INPUT)
    again = measure_layers(module, ["features.8"], INPUT)
    assert first[1] == again[0]
