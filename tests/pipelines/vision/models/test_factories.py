"""Code of a person's own file: what it may say, when it runs, and that it is part of a model's identity."""

from pathlib import Path

import pytest
import torch

from tests.networks import write_networks
from unitscope_pipelines.indexing.config import IndexConfig, load_config
from unitscope_pipelines.vision.models.models import load_model, reload_model
from unitscope_schemas.errors import ModelError, UsageError


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
