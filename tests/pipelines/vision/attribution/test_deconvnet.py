"""Projections against networks taken apart by hand: max_unpool2d, conv_transpose2d, explicit matrices."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from unitscope_pipelines.vision.attribution.deconvnet import METHODS, default_method, project
from unitscope_pipelines.vision.images.diverging import FAINT_SHARE
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.questions import ProjectionMethod
from unitscope_schemas.units import LayerSpec


def _layer(model: nn.Module, name: str, shape: tuple[int, int, int]) -> LayerSpec:
    return measure_layers(model, [name], shape, picture_count=0)[0]


def _frozen(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and biases, of the spread that keeps activations at the same size from layer to layer."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval().requires_grad_(False)


def _deconvnet_by_hand(layers: nn.Sequential, end: int, image: Tensor, channel: int, place: Location) -> Tensor:
    """The deconvnet of `layers[:end + 1]` in separate steps: a list of switches up, then transposed layers down."""
    sizes, switches, values = [], {}, image
    for number, layer in enumerate(layers[: end + 1]):
        sizes.append(values.shape)
        if isinstance(layer, nn.MaxPool2d):
            values, switches[number] = F.max_pool2d(values, layer.kernel_size, layer.stride, return_indices=True)
        else:
            values = F.relu(values) if isinstance(layer, nn.ReLU) else layer(values)
    signal = torch.zeros_like(values)
    signal[0, channel, place.row, place.col] = values[0, channel, place.row, place.col]
    for number in range(end, -1, -1):
        layer, size = layers[number], sizes[number]
        if isinstance(layer, nn.ReLU):
            signal = F.relu(signal)
        elif isinstance(layer, nn.MaxPool2d):
            signal = _unpooled(signal, switches[number], layer, size)
        else:
            assert isinstance(layer, nn.Conv2d)
            left = [
                (size[axis + 2] + 2 * layer.padding[axis] - layer.kernel_size[axis]) % layer.stride[axis]
                for axis in (0, 1)
            ]
            signal = F.conv_transpose2d(signal, layer.weight, None, layer.stride, layer.padding, left)
    return signal[0]


def _unpooled(signal: Tensor, switches: Tensor, pool: nn.MaxPool2d, size: torch.Size) -> Tensor:
    """`max_unpool2d` keeps but one of two windows that share a switch, so windows that overlap are unpooled apart."""
    apart, stride = -(-int(pool.kernel_size) // int(pool.stride)), int(pool.stride)
    total = torch.zeros(size)
    for row in range(apart):
        for col in range(apart):
            part = signal[:, :, row::apart, col::apart]
            indices = switches[:, :, row::apart, col::apart]
            kernel = [size[axis] - (part.shape[axis] - 1) * stride for axis in (2, 3)]
            total += F.max_unpool2d(part, indices, kernel, stride, output_size=size)
    return total


@pytest.mark.parametrize(
    ("build", "end", "place"),
    [
        (torchvision.models.alexnet, 12, Location(2, 3)),
        (torchvision.models.alexnet, 10, Location(12, 0)),
        (torchvision.models.vgg16, 29, Location(3, 5)),
    ],
)
def test_deconvnet_equals_max_unpooling_and_transposed_convolutions(
    build: Callable[..., nn.Module], end: int, place: Location
) -> None:
    model = _frozen(build(weights=None))
    side = 224 if end < 20 else 112
    layer = _layer(model, f"features.{end}", (3, side, side))
    assert layer.grid.height > place.row
    images = torch.randn(2, 3, side, side)
    channel = int(model.features[: end + 1](images)[:, :, place.row, place.col].amin(0).argmax())
    found = project(model, layer, channel, images, [place, place], "deconvnet")
    for image, pixels in zip(images, found.pixels, strict=True):
        expected = _deconvnet_by_hand(model.features, end, image[None], channel, place)
        assert expected.abs().max() > 0
        assert (pixels - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_remains_outside_the_receptive_field(method: ProjectionMethod) -> None:
    """Exactly zero outside, something inside, at a corner as in the middle."""
    model = _frozen(torchvision.models.alexnet(weights=None))
    layer = _layer(model, "features.6", (3, 224, 224))
    places = [Location(0, 0), Location(6, 6), Location(12, 3)]
    found = project(model, layer, 5, torch.randn(3, 3, 224, 224), places, method)
    for pixels, place in zip(found.pixels, places, strict=True):
        top, left, bottom, right = layer.receptive_field.box_at(place)
        assert (bottom - top) * (right - left) < 224 * 224 / 2
        assert pixels[:, top:bottom, left:right].abs().max() > 0
        pixels[:, top:bottom, left:right] = 0
        assert not pixels.any()


@pytest.mark.parametrize("method", ["deconvnet", "guided"])
def test_a_linear_network_projects_by_its_transposed_matrix(method: ProjectionMethod) -> None:
    """Column by column: the answer to each pixel alone, less the answer to no pixels."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.AvgPool2d(2, 1), nn.Conv2d(4, 3, 2, groups=1)
    )
    model[1].running_mean.normal_()
    model = _frozen(model)
    layer, place = _layer(model, "3", (2, 9, 11)), Location(1, 2)
    impulses = torch.eye(2 * 9 * 11).view(-1, 2, 9, 11)
    matrix = (model(impulses) - model(torch.zeros(1, 2, 9, 11)))[:, 1, place.row, place.col]
    image = torch.randn(1, 2, 9, 11)
    found = project(model, layer, 1, image, [place], method)
    torch.testing.assert_close(found.pixels.flatten(), matrix * found.activation, rtol=1e-5, atol=1e-6)
    assert "nothing was rectified" in found.notes[0]


def test_gradient_times_input_sums_to_the_activation_without_biases() -> None:
    """Euler's law of functions that are homogeneous of degree one: a ReLU network without biases."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, bias=False))
    layer = _layer(model.eval(), "3", (3, 16, 16))
    found = project(model, layer, 2, torch.randn(4, 3, 16, 16), [Location(1, 3)] * 4, "gradient-x-input")
    torch.testing.assert_close(found.pixels.sum((1, 2, 3)), found.activation, rtol=1e-4, atol=1e-5)
    assert found.notes == ()


class _Rectified(nn.Module):
    """Two convolutions with a ReLU between, which each way of writing it calls differently."""

    def __init__(self, relu: Callable[[Tensor], Tensor | None]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.relu = relu

    def forward(self, image: Tensor) -> Tensor:
        values = self.first(image)
        rectified = self.relu(values)
        return self.second(values if rectified is None else rectified)


def _discarded(values: Tensor) -> None:
    F.relu(values, inplace=True)


_WAYS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "in-place module": nn.ReLU(inplace=True),
    "function": F.relu,
    "method": Tensor.relu,
    "in-place function": torch.relu_,
    "in place, its output not used": _discarded,
    "clamp": lambda values: values.clamp(min=0),
    "hardtanh": nn.Hardtanh(0.0, 1e9),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", _WAYS)
def test_a_relu_is_found_however_it_is_written(way: str, method: ProjectionMethod) -> None:
    image, place = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(1)), [Location(2, 3)]
    plain, other = _frozen(_Rectified(nn.ReLU())), _frozen(_Rectified(_WAYS[way]))
    layer = _layer(plain, "second", (3, 10, 10))
    expected = project(plain, layer, 1, image, place, method)
    found = project(other, layer, 1, image, place, method)
    torch.testing.assert_close(found.pixels, expected.pixels)
    assert found.passed == expected.passed == {"ReLU": 1}


def test_guided_signals_pass_only_where_both_ways_are_positive() -> None:
    model = _frozen(_Rectified(nn.ReLU()))
    image, place = torch.randn(1, 3, 10, 10), Location(0, 0)
    layer = _layer(model, "second", (3, 10, 10))
    hidden = model.first(image)
    signal = torch.zeros(1, 6, 8, 8)
    activation = model(image)[0, 2, 0, 0]
    signal[0, :, :3, :3] = activation * model.second.weight[2]
    for method, passed in {
        "deconvnet": signal > 0,
        "guided": (signal > 0) & (hidden > 0),
        "gradient": hidden > 0,
        "gradient-x-input": hidden > 0,
    }.items():
        start = signal / activation if method.startswith("gradient") else signal
        expected = F.conv_transpose2d(start * passed, model.first.weight)
        expected = expected * image if method == "gradient-x-input" else expected
        found = project(model, layer, 2, image, [place], method)
        torch.testing.assert_close(found.pixels, expected)


def test_projections_leave_no_hook_and_the_network_as_it_was() -> None:
    model = _frozen(_Rectified(nn.ReLU(inplace=True)))
    image, layer = torch.randn(1, 3, 10, 10), _layer(model, "second", (3, 10, 10))
    before = model(image)
    for method in METHODS:
        project(model, layer, 0, image, [Location(0, 0)], method)
    assert torch.equal(model(image), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_is_done_without_pooling_and_relu_is_said() -> None:
    """Tokens: a location of the grid and the class token's, each by the plain gradient."""
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32).eval().requires_grad_(False)
    layer = _layer(model, "encoder.layers.encoder_layer_1", (3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    found = project(model, layer, 3, images, [Location(-1, 0), Location(2, 1)], "deconvnet")
    assert [note.partition(",")[0] for note in found.notes] == [
        "there is no ReLU before this layer",
        "there is no max-pooling before this layer",
        "the derivative was used at what has no rule: GELU",
    ]
    outputs = {}
    model.encoder.layers[1].register_forward_hook(lambda _module, _inputs, output: outputs.update(last=output))
    leaf = images.clone().requires_grad_()
    model(leaf)
    values = torch.stack([outputs["last"][0, 0, 3], outputs["last"][1, 1 + 2 * 4 + 1, 3]])
    torch.testing.assert_close(found.activation, values.detach())
    torch.testing.assert_close(found.pixels, torch.autograd.grad(values, leaf, values.detach())[0])


_HEADS: dict[str, tuple[Callable[[], nn.Module], str, Location]] = {
    "a map behind max-pooling": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3)),
        "3",
        Location(1, 1),
    ),
    "a vector": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 64, 5)), "2", Location(0, 0)),
    "a token": (
        lambda: torchvision.models.VisionTransformer(10, 5, 1, 2, 16, 32),
        "encoder.layers.encoder_layer_0",
        Location(1, 0),
    ),
}


@pytest.mark.parametrize("head", _HEADS)
def test_gradient_is_the_gradient_and_its_product_with_the_input_is_named_so(head: str) -> None:
    build, name, place = _HEADS[head]
    torch.manual_seed(0)
    model = build().eval().requires_grad_(False)
    layer, image = _layer(model, name, (3, 10, 10)), torch.randn(1, 3, 10, 10)
    outputs: dict[str, Tensor] = {}
    handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, output: outputs.update(last=output))
    leaf = image.clone().requires_grad_()
    model(leaf)
    handle.remove()
    last = outputs["last"]
    value = {
        "map": lambda: last[0, 3, place.row, place.col],
        "vector": lambda: last[0, 3],
        "tokens": lambda: last[0, 1 + 2 * place.row + place.col, 3],
    }[layer.kind]()
    (expected,) = torch.autograd.grad(value, leaf)
    found = {method: project(model, layer, 3, image, [place], method) for method in ("gradient", "gradient-x-input")}
    torch.testing.assert_close(found["gradient"].pixels, expected)
    torch.testing.assert_close(found["gradient-x-input"].pixels, expected * image)
    assert found["gradient"].notes == found["gradient-x-input"].notes == ()


class _Branches(nn.Module):
    """A convolution, and beside it one behind max-pooling that is computed first."""

    def __init__(self) -> None:
        super().__init__()
        self.pooled, self.plain = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.pooled(F.max_pool2d(image, 3, 1, 1)) + self.plain(image)


@pytest.mark.parametrize(
    ("build", "name", "method"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)), "3", "deconvnet"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)), "1", "guided"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(4), nn.Conv2d(4, 4, 3)), "2", "deconvnet"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3)), "2", "guided"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.ReLU(), nn.Conv2d(4, 4, 3)), "3", "guided"),
        (lambda: torchvision.models.VisionTransformer(16, 8, 1, 2, 16, 32), "encoder.layers.encoder_layer_0", "guided"),
        (_Branches, "pooled", "deconvnet"),
        (_Branches, "plain", "guided"),
    ],
)
def test_the_default_method_is_a_deconvnet_only_where_switches_lie_on_the_way(
    build: Callable[[], nn.Module], name: str, method: ProjectionMethod
) -> None:
    model = build().eval().requires_grad_(False)
    assert default_method(model, _layer(model, name, (3, 16, 16)), (3, 16, 16)) == method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("scale", "bias"), [(1e-9, 0.0), (1e-9, 1.0), (0.0, 1.0), (1e-6, 0.5)])
def test_a_signal_of_hardly_any_weight_is_seen_beside_the_layers(
    method: ProjectionMethod, scale: float, bias: float
) -> None:
    """Dead filters: their own scale would draw dust at full contrast; the others of the layer need no comparison."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3)).eval().requires_grad_(False)
    model[2].weight[5] *= scale
    model[2].bias[5] = bias
    layer, image = _layer(model, "2", (3, 12, 12)), torch.randn(2, 3, 12, 12)
    places = [Location(2, 3), Location(4, 4)]
    dead, alive = (project(model, layer, channel, image, places, method) for channel in (5, 6))
    for number in range(2):
        largest = float(dead.pixels[number].abs().max())
        assert largest == 0 or largest < FAINT_SHARE * dead.layer_signal[number] / 100
        assert float(alive.pixels[number].abs().max()) > FAINT_SHARE * alive.layer_signal[number]


@pytest.mark.parametrize("method", ["gradient", "guided", "deconvnet"])
def test_a_projection_that_is_not_finite_names_its_unit_and_what_would_do(method: ProjectionMethod) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)).eval().requires_grad_(False)
    model[2].weight[3, 0, 0, 0] = torch.inf
    (layer,) = measure_layers(model, ["2"], (3, 12, 12), picture_count=0)
    images = torch.rand(2, 3, 12, 12) + 1
    with pytest.raises(UsageError, match=r"unit 2:3 is not finite .* activation of .*: it has no picture; try another"):
        project(model, layer, 3, images, [Location(2, 2)] * 2, method)
