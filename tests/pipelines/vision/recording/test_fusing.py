"""A fused forward records what the plain one does; nothing is fused that is recorded or used twice."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitscope_pipelines.vision.models.models import choose_layers, load_model
from unitscope_pipelines.vision.recording.fusing import Fusions, find_fusions
from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.errors import ModelError

IMAGES = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Convolution, batch norm and an activation that all blocks of a network may share."""

    def __init__(self, activation: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.activation = activation
        generator = torch.Generator().manual_seed(1)
        for values in (self.norm.running_mean, self.norm.weight.data, self.norm.bias.data):
            assert values is not None
            values.copy_(torch.randn(8, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(images)))


class Custom(nn.Module):
    """Blocks put together by a function."""

    def __init__(self, function: Callable[["Custom", Tensor], Tensor]) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.first, self.second = Block(self.relu), Block(self.relu, 8)
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self, images)


def fused(
    model: nn.Module, layers: list[str], images: Tensor = IMAGES
) -> tuple[Fusions, dict[str, tuple[Tensor, Tensor]]]:
    """The fusions of a model, and what plain and fused forwards record of each layer."""
    model.eval().requires_grad_(False)
    fusions = find_fusions(model, layers, images)
    with torch.no_grad(), record(model, layers, lambda _, output: output.clone()) as recorded:
        model(images)
        plain = dict(recorded)
        with fusions.running():
            model(images)
    return fusions, {layer: (plain[layer], recorded[layer]) for layer in layers}


def assert_alike(outputs: dict[str, tuple[Tensor, Tensor]]) -> None:
    for plain, other in outputs.values():
        torch.testing.assert_close(other, plain, rtol=0, atol=1e-4 * float(plain.abs().max()))


@pytest.mark.parametrize(
    ("spec", "weights", "expected"),
    [
        ("efficientnet-lite:0", "default", "49 batch norms, 33 activations and 17 paddings fused"),
        ("torchvision:resnet18", "random:0", "20 batch norms, 9 activations and 0 paddings fused"),
        ("torchvision:mobilenet_v3_small", "random:0", "34 batch norms, 32 activations and 0 paddings fused"),
        ("torchvision:convnext_tiny", "random:0", "0 batch norms, 0 activations and 0 paddings fused"),
    ],
)
def test_networks_record_the_same(spec: str, weights: str, expected: str) -> None:
    model = load_model(spec, weights)
    fusions, outputs = fused(model.module, choose_layers(model), torch.randn(2, *model.input_shape))
    assert str(fusions) == expected
    assert_alike(outputs)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardtanh(-0.5, 0.5), nn.SiLU(), nn.Hardswish(), nn.GELU()],
)
def test_every_activation_gives_its_own_values(activation: nn.Module) -> None:
    fusions, outputs = fused(nn.Sequential(Block(activation), nn.Identity()), ["1"])
    assert len(fusions.chains) == 1
    assert_alike(outputs)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("0.conv", "0 batch norms, 0 activations and 0 paddings fused"),
        ("0.norm", "1 batch norms, 0 activations and 0 paddings fused"),
        ("0.activation", "1 batch norms, 1 activations and 0 paddings fused"),
    ],
)
def test_a_recorded_output_is_never_skipped(layer: str, expected: str) -> None:
    fusions, outputs = fused(nn.Sequential(Block(nn.ReLU(inplace=True))), [layer])
    assert str(fusions) == expected
    assert_alike(outputs)


@pytest.mark.parametrize("sides", [(1, 1, 1, 1), (0, 1, 0, 1), (2, 0, 1, 3)])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_padding_becomes_part_of_the_convolution(sides: tuple[int, int, int, int], groups: int) -> None:
    model = nn.Sequential(nn.ZeroPad2d(sides), nn.Conv2d(3, 6, 3, stride=2, groups=groups), nn.Identity())
    fusions, outputs = fused(model, ["2"])
    assert fusions.pads == {0}
    assert_alike(outputs)


@pytest.mark.parametrize("pad", [nn.ReflectionPad2d(1), nn.ConstantPad2d(1, 0.5), nn.ZeroPad2d(-1)])
def test_other_paddings_are_left_alone(pad: nn.Module) -> None:
    fusions, outputs = fused(nn.Sequential(pad, nn.Conv2d(3, 6, 3), nn.ReLU()), ["2"])
    assert not fusions.pads
    assert_alike(outputs)


def test_an_output_that_is_used_twice_ends_its_chain() -> None:
    def forward(model: Custom, images: Tensor) -> Tensor:
        convolved = model.first.conv(images)
        return F.relu(model.first.norm(convolved)) + convolved

    fusions, outputs = fused(Custom(forward), [""])
    assert str(fusions) == "0 batch norms, 0 activations and 0 paddings fused"
    assert_alike(outputs)


def test_a_shared_activation_is_skipped_only_where_it_was_fused() -> None:
    fusions, outputs = fused(Custom(lambda model, images: model.relu(model.second(model.first(images)) - 0.5)), [""])
    assert str(fusions) == "2 batch norms, 2 activations and 0 paddings fused"
    assert_alike(outputs)


def test_a_convolution_that_is_called_twice_has_two_chains() -> None:
    def forward(model: Custom, images: Tensor) -> Tensor:
        once = model.second(model.first(images))
        return once + model.second.norm(model.second.conv(once))

    fusions, outputs = fused(Custom(forward), [""])
    assert str(fusions) == "3 batch norms, 2 activations and 0 paddings fused"
    assert_alike(outputs)


def test_a_network_that_comes_near_overflow_keeps_its_relus_so_that_nan_is_seen() -> None:
    model = nn.Sequential(Block(nn.ReLU()), nn.Identity())
    model[0].conv.weight.data[2] *= 1e38
    fusions, outputs = fused(model, ["1"])
    assert "0 activations" in str(fusions)
    plain, other = outputs["1"]
    assert torch.equal(plain.isfinite(), other.isfinite())


def test_a_forward_that_takes_another_way_later_is_refused() -> None:
    model = Custom(lambda model, images: (model.first if images.sum() > 0 else model.second)(model.first(images)))
    model.second = Block(model.relu, 8)
    model.first = nn.Sequential(Block(model.relu), nn.Conv2d(8, 3, 1))  # type: ignore[assignment]
    model.second = Block(model.relu, 3)
    model.eval().requires_grad_(False)
    fusions = find_fusions(model, [""], IMAGES.abs())
    with pytest.raises(ModelError), fusions.running():
        model(-IMAGES.abs())


def test_a_batch_norm_in_training_mode_is_left_alone() -> None:
    model = nn.Sequential(Block(nn.ReLU())).eval().requires_grad_(False)
    model[0].norm.train()
    assert str(find_fusions(model, [""], IMAGES)) == "0 batch norms, 0 activations and 0 paddings fused"


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(Block(nn.ReLU()))
    weights = {name: values.clone() for name, values in model.state_dict().items()}
    fused(model, [""])
    assert all(torch.equal(values, weights[name]) for name, values in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
