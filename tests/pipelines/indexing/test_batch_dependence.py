"""Runs whose values would hang on the batch or on chance: refused before scanning, or allowed and said everywhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from unitscope.cli import app
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.plan import Plan, make_plan
from unitscope_pipelines.storage.parts import read_manifest, read_measured, write_model
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout
from unitscope_schemas.errors import ModelError, UsageError
from unitscope_schemas.manifest import MeasuredLayers
from unitscope_services.web.app import Settings, create_app

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F

SMALL = {"input_size": (3, 16, 16), "crop_pct": 1.0, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


class Dropout(nn.Module):
    def forward(self, values):
        return F.dropout(values, 0.3)


def net(*middle):
    return nn.Sequential(nn.Conv2d(3, 4, 3), *middle, nn.ReLU(), nn.Conv2d(4, 5, 3)), SMALL


def plain(): return net()
def norm(): return net(nn.BatchNorm2d(4, track_running_stats=False))
def dropout(): return net(Dropout())
def twice(): return net(nn.BatchNorm2d(4, track_running_stats=False), nn.Identity(), Dropout())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures in `pictures`, and the file with the networks."""
    folder = tmp_path_factory.mktemp("batches")
    (folder / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / "pictures" / f"{number}.png")
    (folder / "nets.py").write_text(SOURCE)
    return folder


@pytest.fixture
def plan_of(folder: Path, tmp_path: Path) -> Callable[..., Plan]:
    def plan(name: str, **settings: object) -> Plan:
        config = IndexConfig(
            corpus=str(folder / "pictures"),
            atlas=str(tmp_path / "atlas"),
            model=f"file:{folder / 'nets.py'}:{name}",
            weights="random:0",
            trust_code=True,
            **settings,
        )
        return make_plan(config, list_corpus(config.corpus), lambda _: None)

    return plan


def _page(atlas: Path) -> str:
    with TestClient(create_app(Settings(atlases=(atlas,), corpora=recorded_corpora(atlas))), ORIGIN) as client:
        return client.get(f"/a/{atlas.name}").text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "norm",
            r"layer '1' \(BatchNorm2d\) puts out other values for the same picture beside other pictures, by up to",
        ),
        ("dropout", r"layer '1' \(Dropout\) puts out other values for the same picture by chance, when it comes again"),
        ("twice", r"layer '3' \(Dropout\) puts out other values for the same picture by chance"),
    ],
)
def test_values_that_depend_on_other_pictures_or_on_chance_are_refused_unless_allowed(
    name: str, words: str, plan_of: Callable[..., Plan]
) -> None:
    with pytest.raises(ModelError, match=f"{words}.*--allow-batch-dependence"):
        plan_of(name)
    dependence = plan_of(name, allow_batch_dependence=True).batch_dependence
    assert dependence is not None and dependence.startswith("layer ")


def test_a_plan_of_layers_before_it_or_of_one_picture_at_a_time_is_not_refused(plan_of: Callable[..., Plan]) -> None:
    assert plan_of("plain").batch_dependence is None
    assert plan_of("norm", layers=("0",)).batch_dependence is None
    assert plan_of("norm", batch_size=1).batch_dependence is None


def test_a_run_that_resumes_knows_what_was_found_and_an_atlas_of_before_is_tried(
    plan_of: Callable[..., Plan],
) -> None:
    plan = plan_of("norm", allow_batch_dependence=True)
    store, path = plan.store, layout.measured(plan.scan.atlas_key)
    write_model(store, path, plan.measured)
    assert read_measured(store, plan.scan.atlas_key) == plan.measured
    with pytest.raises(ModelError, match="--allow-batch-dependence"):
        plan_of("norm")
    unchecked = MeasuredLayers(atlas_key=plan.scan.atlas_key, layers=list(plan.scan.layers))
    write_model(store, path, unchecked)
    with pytest.raises(ModelError, match="--allow-batch-dependence"):
        plan_of("norm")


def test_what_is_allowed_is_said_by_the_command_the_manifest_the_page_and_verify(
    folder: Path, tmp_path: Path, ray_session: None
) -> None:
    words = [str(folder / "pictures"), "--atlas", str(tmp_path / "atlas"), "--model", f"file:{folder / 'nets.py'}:norm"]
    words = ["index", *words, "--weights", "random:0", "--trust-code", "--workers", "1"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, ModelError) and not (tmp_path / "atlas" / "manifest.json").exists()
    allowed = CliRunner().invoke(app, [*words, "--allow-batch-dependence"])
    assert allowed.exit_code == 0, allowed.output
    assert "values depend on a picture's batch: layer '1' (BatchNorm2d)" in allowed.stderr
    manifest = read_manifest(store_of(tmp_path / "atlas"))
    assert manifest is not None and manifest.batch_dependence and "BatchNorm2d" in manifest.batch_dependence
    page = _page(tmp_path / "atlas")
    assert "values depend on a picture&#39;s batch" in page and "--allow-batch-dependence" in page
    verified = CliRunner().invoke(app, ["verify", str(tmp_path / "atlas"), "--trust-code"])
    assert verified.exit_code == 0, verified.output
    assert "no forward was run again: layer" in verified.stderr
    with pytest.raises(UsageError, match=r"other code of file:.*nets\.py:norm"):
        (folder / "nets.py").write_text(SOURCE + "\n")
        CliRunner().invoke(app, [*words, "--allow-batch-dependence"], catch_exceptions=False)
