"""What a measured layer is said to be, and which layers are refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.pipelines.vision.receptive_fields.networks import INPUT, Computed, computed, measured, network
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Location


def test_tokens_lie_on_the_patch_grid_behind_their_class_token() -> None:
    layer = measured("torchvision:vit_b_16")[0]
    assert (layer.kind, layer.units, layer.grid, layer.prefix_tokens) == ("tokens", 768, (14, 14), 1)
    assert layer.receptive_field.kind == "whole" and layer.receptive_field.size is None
    before = measure_layers(network("torchvision:vit_b_16").module, ["encoder.dropout"], INPUT, picture_count=0)[0]
    assert before.receptive_field.size == before.receptive_field.stride == (16, 16)
    assert before.receptive_field.box_at(Location(1, 13)) == (16, 208, 32, 224)


def test_tokens_without_a_patch_grid_have_no_place() -> None:
    layer = computed(lambda x: x.flatten(2).transpose(1, 2)[:, :50])[1]
    assert (layer.kind, layer.units, layer.grid, layer.prefix_tokens) == ("tokens", 4, (0, 0), 50)


def test_the_first_tensor_of_a_tuple_is_the_layer() -> None:
    layer = computed(lambda x: (x[:, :2], x))[1]
    assert layer.units == 2


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("nothing", lambda x: x, "no layer 'nothing'"),
        ("conv@1", lambda x: x, "'conv@1' was not called"),
        ("layer", lambda x: x.sum(0), r"puts out shape \(4, 12, 16\) for one picture and \(4, 12, 16\) for two"),
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
