"""Kinds of networks, end to end: recorded as NumPy's argmax says, asked in every way, in boxes that hold."""

import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms.v2 import InterpolationMode

from pipelines.config import IndexConfig
from pipelines.index import index
from pipelines.vision.models import load_model
from schemas.errors import UsageError
from schemas.units import UnitId
from schemas.web import PatchQuery
from services.atlas import Atlas
from services.subjects import Asked
from services.units import patches
from tests import oracle
from tests.networks import write_networks
from tests.pictures import blobs, stripes
from tests.vision.test_receptive_fields import assert_boxes_hold_for_nan

SMALL_LOOK = oracle.Look(64, 64, InterpolationMode.BILINEAR, (127.5,) * 3, (63.75,) * 3)
GREY_LOOK = oracle.Look(28, 28, InterpolationMode.BILINEAR, (127.5,), (127.5,))
CHECKED_UNITS = 12


@dataclass(frozen=True)
class Case:
    """A network, the layers to record (`last`: those with channels last), and how the oracle sees pictures."""

    spec: str
    layers: tuple[str, ...]
    look: oracle.Look = oracle.TORCHVISION_LOOK
    last: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.spec


def swin_look() -> oracle.Look:
    return oracle.TORCHVISION_LOOK._replace(resize=232, interpolation=InterpolationMode.BICUBIC)


OWN = (
    Case("file:mlp", ("1", "2", "3"), GREY_LOOK),
    Case("file:swin", ("patch_embed", "layers.0.blocks.1", "layers.1.blocks.1"), SMALL_LOOK,
         ("patch_embed", "layers.0.blocks.1", "layers.1.blocks.1")),
)  # fmt: skip

FAMILIES = (
    Case("file:twice", ("stem", "conv@0", "conv@1", "head"), SMALL_LOOK),
    Case("file:vit", ("patch_embed", "blocks.0.attn", "blocks.0.mlp.fc1", "blocks.1"), SMALL_LOOK),
    Case("torchvision:convnext_tiny", ("features.1.0", "features.1.0.block.3", "features.7.2"),
         oracle.TORCHVISION_LOOK._replace(resize=236), ("features.1.0.block.3",)),
    Case("torchvision:swin_t", ("features.1.0", "features.1.0.mlp.0", "features.3.1", "features.7.1"), swin_look(),
         ("features.1.0", "features.1.0.mlp.0", "features.3.1", "features.7.1")),
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of several shapes."""
    folder = tmp_path_factory.mktemp("few")
    for number in range(6):
        make = blobs if number % 2 else stripes
        make(number, *((96, 128) if number == 2 else (96, 96))).save(folder / f"{number}.jpg", quality=92)
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with networks of one's own."""
    return write_networks(tmp_path_factory.mktemp("code"))


def plain_network(spec: str, networks: Path) -> nn.Module:
    """The same network without the product."""
    scheme, _, name = spec.partition(":")
    torch.manual_seed(3)
    if scheme == "file":
        return runpy.run_path(str(networks))[name]()[0]
    return models.get_model(name)


def indexed(case: Case, networks: Path, corpus: Path, atlas: Path, **options: Any) -> Atlas:
    """An atlas by the real index run."""
    config = IndexConfig(
        corpus=str(corpus),
        atlas=str(atlas),
        model=case.spec.replace("file:", f"file:{networks}:"),
        weights="random:3",
        layers=case.layers,
        trust_code=case.spec.startswith("file:"),
        batch_size=3,
        workers=1,
        **options,
    )
    index(config, lambda _: None)
    return Atlas(atlas)


def assert_answers_hold(case: Case, networks: Path, corpus: Path, atlas: Path) -> None:
    """Top, explain, neighbors and boxes of a fresh atlas against the oracle and the network itself."""
    opened = indexed(case, networks, corpus, atlas)
    truth = oracle.measure(plain_network(case.spec, networks), list(case.layers), corpus, case.look, case.last)
    found = []
    for entry in opened.manifest.layers:
        spec = entry.spec
        assert spec.channels_last == (spec.name in case.last)
        assert spec.units == truth.activation[spec.name].shape[1]
        for unit in range(min(spec.units, CHECKED_UNITS)):
            page = patches(opened, UnitId(spec.name, unit), PatchQuery(limit=4))
            rows = [{"image_id": row.image_id, "activation": row.activation, "row": row.row, "col": row.col}
                    for row in page.rows]  # fmt: skip
            assert all(min(row.box.size) >= 1 for row in page.rows)
            found += oracle.disagreements(truth, spec.name, unit, rows, spec.grid.width, spec.prefix_tokens)
    assert found == []
    asked = Asked(atlas)
    assert len(asked.explain(asked.find("0.jpg")).rows) == min(20, sum(e.spec.units for e in opened.manifest.layers))
    assert len(asked.neighbors(asked.find("1.jpg"), exact=True).rows) == 6
    opened.close()


def assert_fields_hold(case: Case, networks: Path, atlas: Path) -> None:
    model = load_model(case.spec.replace("file:", f"file:{networks}:"), "random:3", trust_code=True)
    opened = Atlas(atlas)
    for entry in opened.manifest.layers:
        if entry.spec.kind != "vector":
            assert_boxes_hold_for_nan(model.module, entry.spec, model.input_shape, tight=False)
    opened.close()


@pytest.mark.parametrize("case", [*OWN, *(pytest.param(case, marks=pytest.mark.slow) for case in FAMILIES)], ids=str)
def test_networks_answer_as_the_oracle(
    case: Case, networks: Path, corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    assert_answers_hold(case, networks, corpus, tmp_path / "a")
    assert_fields_hold(case, networks, tmp_path / "a")


def test_latents_are_indexed_and_their_code_is_not_run_unless_trusted(
    networks: Path, corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    case = Case("file:twice", ("stem", "conv@0", "conv@1"), SMALL_LOOK)
    opened = indexed(case, networks, corpus, tmp_path / "a", latents=(f"stem=file:{networks}:of_stem",))
    assert [entry.spec.name for entry in opened.manifest.layers] == ["stem.latents", "stem", "conv@0", "conv@1"]
    outside = tmp_path / "outside.png"
    blobs(77).save(outside)
    closed, trusted = Asked(tmp_path / "a"), Asked(tmp_path / "a", trust_code=True)
    rows = closed.explain(closed.find("0.jpg"), "stem.latents").rows
    assert len(rows) == 20 and min(row.activation for row in rows) >= 0
    with pytest.raises(UsageError, match="--trust-code"):
        closed.explain(closed.find(str(outside)))
    assert len(trusted.explain(trusted.find(str(outside)), "stem.latents").rows) == 20
