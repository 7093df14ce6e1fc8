"""What is a map, what are tokens, and what is neither: told from the computation, in any depth."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.networks import write_networks
from unitscope_pipelines.vision.models.models import VisionModel, load_model
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Size
from unitscope_schemas.units import LayerSpec


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with networks of one's own."""
    return write_networks(tmp_path_factory.mktemp("code"))


def own(networks: Path, name: str) -> VisionModel:
    return load_model(f"file:{networks}:{name}", "random:0", trust_code=True)


def layer_of(model: VisionModel, name: str) -> LayerSpec:
    return measure_layers(model.module, [name], model.input_shape, picture_count=0)[0]


@pytest.mark.parametrize("block", [0, 1])
def test_the_heads_of_attention_are_refused_and_the_layers_around_them_named(block: int, networks: Path) -> None:
    model, layer = own(networks, "vit"), f"blocks.{block}.attn"
    with pytest.raises(
        ModelError, match=rf"{layer}\.k_norm.*shape \(2, 21, 16\).*record {layer} or blocks\.{block} around"
    ):
        layer_of(model, f"{layer}.k_norm")
    assert layer_of(model, layer).kind == layer_of(model, f"blocks.{block}").kind == "tokens"


class Mixed(nn.Module):
    """Patches whose values are mixed over the whole picture, then handed to `function`."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.function = function
        self.layer = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images)
        return self.layer(self.function(patches + patches.mean((2, 3), keepdim=True)))


def mixed(function: Callable[[Tensor], Tensor]) -> LayerSpec:
    return measure_layers(Mixed(function).eval(), ["layer"], (3, 16, 20), picture_count=0)[0]


def scores(values: Tensor) -> Tensor:
    tokens = values.flatten(2).transpose(1, 2).unflatten(2, (2, 3)).transpose(1, 2)
    return (tokens @ tokens.transpose(2, 3)).softmax(3)


@pytest.mark.parametrize(
    "function",
    [
        scores,
        lambda values: scores(values)[:, :, :4, :5],
        lambda values: values.flatten(2).unflatten(1, (2, 3)),
        lambda values: values.unflatten(1, (2, 3)),
    ],
    ids=["scores", "scores of a map's shape", "heads by channel", "five axes"],
)
def test_what_is_no_map_and_no_tokens_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ModelError, match=r"'layer' puts out shape .* whose axes are neither .* choose another layer"):
        mixed(function)


def test_a_map_whose_values_all_see_the_whole_input_keeps_its_axes() -> None:
    first, last = mixed(lambda values: values), mixed(lambda values: values.permute(0, 2, 3, 1))
    assert first.receptive_field.kind == last.receptive_field.kind == "whole"
    assert (first.units, first.grid, first.channels_last) == (6, Size(4, 5), False)
    assert (last.units, last.grid, last.channels_last) == (6, Size(4, 5), True)


def test_tokens_say_themselves_where_they_lie() -> None:
    def with_prefix(values: Tensor) -> Tensor:
        return torch.cat([torch.zeros(len(values), 20, 6), values.flatten(2).transpose(1, 2)], 1)

    layer = mixed(with_prefix)
    assert (layer.kind, layer.grid, layer.prefix_tokens) == ("tokens", Size(4, 5), 20)


def test_tokens_of_windows_lie_on_the_grid_of_the_picture(networks: Path) -> None:
    assert layer_of(own(networks, "swin"), "layers.0.blocks.0.mlp.fc1").grid == Size(16, 16)


def test_one_value_of_each_channel_is_a_map_of_one_place() -> None:
    layer = mixed(lambda values: values.mean((2, 3), keepdim=True))
    assert (layer.kind, layer.units, layer.grid, layer.channels_last) == ("map", 6, Size(1, 1), False)


def test_a_convolution_makes_a_map_of_a_vector() -> None:
    decoder = nn.Sequential(
        nn.Conv2d(3, 2, 3),
        nn.Flatten(),
        nn.Linear(2 * 36, 4 * 9),
        nn.Unflatten(1, (4, 3, 3)),
        nn.ConvTranspose2d(4, 5, 2),
    )
    layer = measure_layers(decoder, ["4"], (3, 8, 8), picture_count=0)[0]
    assert (layer.kind, layer.units, layer.grid, layer.channels_last) == ("map", 5, Size(4, 4), False)
