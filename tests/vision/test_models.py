import sys
from pathlib import Path

import pytest
import torch
from torchvision import models

from pipelines.vision.models import choose_layers, load_model
from pipelines.vision.preprocessing import from_data_config
from schemas.errors import ModelError, UsageError
from schemas.geometry import Size
from schemas.manifest import Preprocessing


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


def test_state_dicts_are_read_and_other_pickles_refused(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = models.resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "resnet.pt")
    loaded = load_model("torchvision:resnet18", str(tmp_path / "resnet.pt"))
    assert torch.equal(loaded.module.fc.weight, state["fc.weight"])
    assert loaded.entry.weights_digest == load_model("torchvision:resnet18", "random:5").entry.weights_digest


TIMM_BLOCKS = {
    "test_resnet": "layer1.0",
    "test_vit": "blocks.0",
    "test_efficientnet": "blocks.0.0",
    "test_convnext": "stages.0.blocks.0",
    "swin_tiny_patch4_window7_224": "layers.0.blocks.0",
    "regnetx_002": "s1.b1",
}


@pytest.mark.parametrize("name", TIMM_BLOCKS)
def test_the_default_layers_of_timms_families_are_block_outputs(name: str) -> None:
    assert choose_layers(load_model(f"timm:{name}", "random:0"))[0] == TIMM_BLOCKS[name]


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
