"""Code of a person's own file: what it may say, when it runs, and that it is part of a model's identity."""

from pathlib import Path

import pytest
import torch

from tests.networks import write_networks
from tests.vision.test_receptive_fields import assert_boxes_hold_for_nan
from unitscope_pipelines.indexing.config import IndexConfig, load_config
from unitscope_pipelines.vision.models.models import choose_layers, load_model, reload_model
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.errors import ModelError, UsageError
from unitscope_schemas.geometry import Location


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    """The file with networks of one's own."""
    return write_networks(tmp_path)


def test_code_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "marked.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef build(): ...\n")
    with pytest.raises(UsageError, match="--trust-code"):
        load_model(f"file:{path}:build")
    with pytest.raises(UsageError, match="--trust-code"):
        load_model("torchvision:resnet18", "random:0", [f"layer1=file:{path}:build"])
    assert not (tmp_path / "ran").exists()


def test_a_config_file_cannot_trust_code(tmp_path: Path) -> None:
    (tmp_path / "found.toml").write_text('[index]\nmodel = "file:x.py:build"\ntrust_code = true\n')
    with pytest.raises(UsageError, match="--trust-code on the command line"):
        load_config(IndexConfig, "index", {"corpus": "c", "atlas": "a"}, tmp_path / "found.toml")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("file:build", "is not file:PATH.py:FACTORY"),
        ("file:missing.py:build", "cannot be read"),
        ("file:FILE:mlq", "no function 'mlq'"),
        ("file:FILE:nothing", "gave str"),
    ],
)
def test_a_factory_that_gives_no_network_is_named(spec: str, message: str, networks: Path) -> None:
    with pytest.raises((UsageError, ModelError), match=message):
        load_model(spec.replace("FILE", str(networks)), "random:0", trust_code=True)


def test_the_bytes_of_the_file_belong_to_the_model(networks: Path) -> None:
    entry = load_model(f"file:{networks}:mlp", "random:0", trust_code=True).entry
    assert reload_model(entry, trust_code=True).entry == entry
    networks.write_text(networks.read_text() + "# another byte\n")
    with pytest.raises(ModelError, match=r"code of .* has changed"):
        reload_model(entry, trust_code=True)


def test_a_network_that_is_drawn_anew_each_time_is_noticed(networks: Path) -> None:
    torch.manual_seed(1)
    entry = load_model(f"file:{networks}:mlp", trust_code=True).entry
    torch.manual_seed(2)
    with pytest.raises(ModelError, match="no longer those of the atlas"):
        reload_model(entry, trust_code=True)


def test_a_relative_path_holds_in_every_folder(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(networks.parent)
    entry = load_model(f"file:{networks.name}:mlp", "random:0", trust_code=True).entry
    monkeypatch.chdir("/")
    assert reload_model(entry, trust_code=True).entry == entry


@pytest.mark.parametrize(
    ("factory", "latents", "layer", "units", "kind"),
    [
        ("twice", "stem=of_stem", "stem.latents", 24, "map"),
        ("vit", "blocks.1=of_tokens", "blocks.1.latents", 48, "tokens"),
        ("swin", "layers.0.blocks.1=of_windows", "layers.0.blocks.1.latents", 40, "map"),
    ],
)
def test_latents_are_units_with_the_field_of_their_layer(
    factory: str, latents: str, layer: str, units: int, kind: str, networks: Path
) -> None:
    source, coder = latents.split("=")
    model = load_model(f"file:{networks}:{factory}", "random:0", [f"{source}=file:{networks}:{coder}"], True)
    assert layer in choose_layers(model)
    own, hung = measure_layers(model.module, [source, layer], model.input_shape, picture_count=0)
    assert (hung.units, hung.kind, hung.grid, hung.prefix_tokens) == (units, kind, own.grid, own.prefix_tokens)
    assert hung.receptive_field == own.receptive_field and hung.channels_last == own.channels_last
    pictures = torch.rand(2, *model.input_shape)
    with torch.no_grad(), record(model.module, [source, layer], lambda _, output: output.clone()) as recorded:
        model.module(pictures)
    vectors, found = recorded[source], recorded[layer]
    if factory == "twice":
        vectors, found = vectors.movedim(1, 3), found.movedim(1, 3)
    encoder = dict(model.module.named_modules())[f"{layer}.coder.encoder"]
    assert torch.equal(found, torch.relu(encoder(vectors)))


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ("stem", "are not LAYER=file:PATH.py:FACTORY"),
        ("stam=file:FILE:of_stem", "no layer 'stam'"),
        ("stem=file:FILE:nothing", "not a torch.nn.Module"),
        ("stem=file:FILE:wrong", "only the last axis may change"),
    ],
)
def test_latents_that_do_not_fit_are_named(latents: str, message: str, networks: Path) -> None:
    request = latents.replace("FILE", str(networks))
    with pytest.raises((UsageError, ModelError), match=message):
        choose_layers(load_model(f"file:{networks}:twice", "random:0", [request], True))


@pytest.mark.parametrize("layer", ["patch_embed", "layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0"])
def test_shifted_windows_have_their_true_boxes(layer: str, networks: Path) -> None:
    model = load_model(f"file:{networks}:swin", "random:0", trust_code=True)
    spec = measure_layers(model.module, [layer], model.input_shape, picture_count=0)[0]
    assert spec.channels_last and spec.kind == "map" and spec.units == (32 if layer[7:8] == "1" else 16)
    assert_boxes_hold_for_nan(model.module, [spec], model.input_shape, tight=False)


def test_windows_put_side_by_side_as_images_are_refused(networks: Path) -> None:
    model = load_model(f"file:{networks}:swin", "random:0", trust_code=True)
    with pytest.raises(
        ModelError, match=r"first axis is not the image .* record layers\.0\.blocks\.0 or layers\.0\.blocks around"
    ):
        measure_layers(model.module, ["layers.0.blocks.0.attn"], model.input_shape)


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


def test_latents_can_be_hung_within_inference_mode(networks: Path) -> None:
    with torch.inference_mode():
        model = load_model(f"file:{networks}:twice", "random:0", [f"stem=file:{networks}:of_stem"], True)
    assert not any(parameter.is_inference() for parameter in model.module.parameters())
