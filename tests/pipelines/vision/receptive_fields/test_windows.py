"""Windows of attention and register tokens: their boxes and grids."""

from pathlib import Path

import pytest

from tests.networks import write_networks
from tests.pipelines.vision.receptive_fields.oracles import assert_boxes_hold_for_nan
from unitscope_pipelines.vision.models.models import load_model
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.geometry import Location


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    """The file with networks of one's own."""
    return write_networks(tmp_path)


@pytest.mark.parametrize("layer", ["patch_embed", "layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0"])
def test_shifted_windows_have_their_true_boxes(layer: str, networks: Path) -> None:
    model = load_model(f"file:{networks}:swin", "random:0", trust_code=True)
    spec = measure_layers(model.module, [layer], model.input_shape, picture_count=0)[0]
    assert spec.channels_last and spec.kind == "map" and spec.units == (32 if layer[7:8] == "1" else 16)
    assert_boxes_hold_for_nan(model.module, [spec], model.input_shape, tight=False)


@pytest.mark.parametrize("block", [0, 1])
def test_windows_put_side_by_side_as_images_lie_where_their_tokens_do(block: int, networks: Path) -> None:
    model = load_model(f"file:{networks}:swin", "random:0", trust_code=True)
    spec = measure_layers(model.module, [f"layers.0.blocks.{block}.attn"], model.input_shape, picture_count=0)[0]
    assert (spec.kind, spec.units, spec.grid, spec.prefix_tokens) == ("tokens", 16, (16, 16), 0)
    assert spec.layout is not None and spec.layout.windows == 16
    assert_boxes_hold_for_nan(model.module, [spec], model.input_shape, tight=False)


def test_merged_patches_keep_their_grid_as_tokens(networks: Path) -> None:
    model = load_model(f"file:{networks}:swin", "random:0", trust_code=True)
    spec = measure_layers(model.module, ["layers.1.blocks.0.mlp.fc1"], model.input_shape, picture_count=0)[0]
    assert (spec.kind, spec.units, spec.grid, spec.prefix_tokens) == ("tokens", 128, (8, 8), 0)


def test_register_tokens_stand_before_the_patches(networks: Path) -> None:
    model = load_model(f"file:{networks}:vit", "random:0", trust_code=True)
    names = ["patch_embed", "norm_pre", "blocks.0.attn", "blocks.0.mlp.fc1", "blocks.1"]
    specs = measure_layers(model.module, names, model.input_shape, picture_count=0)
    assert [spec.prefix_tokens for spec in specs] == [0, 5, 5, 5, 5]
    assert [spec.units for spec in specs] == [32, 32, 32, 128, 32]
    assert all(spec.kind == "tokens" and spec.grid == (4, 4) for spec in specs)
    for spec in specs[:2]:
        assert spec.receptive_field.box_at(Location(1, 3)) == (16, 48, 32, 64)
        assert_boxes_hold_for_nan(model.module, [spec], model.input_shape)
    assert specs[1].location(4) == (-1, 4) and specs[1].location(5) == (0, 0)
