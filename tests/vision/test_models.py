from pathlib import Path

import pytest
import torch
from torchvision import models

from pipelines.vision.models import choose_layers, load_model
from schemas.errors import UsageError


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


def test_layers_with_channels_last_are_refused_instead_of_misread() -> None:
    convnext = load_model("torchvision:convnext_tiny", "random:0")
    with pytest.raises(UsageError, match="record the block around it"):
        choose_layers(convnext, ["features.1.0.block.3"])
    with pytest.raises(UsageError, match="not supported yet"):
        load_model("torchvision:swin_t", "random:0")
