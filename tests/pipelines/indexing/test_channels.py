"""A network of 12 channels, end to end: values, boxes and pictures of multispectral TIFF and arrays."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from starlette.testclient import TestClient

import unitscope
from tests import kin
from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from tests.unitscope.test_cli import invoke
from unitscope_pipelines.vision.models.models import load_model
from unitscope_schemas.questions import EigenQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.crops import picture, read_image
from unitscope_services.figures.eigen import eigen_picture
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session
from unitscope_services.web.app import Settings, create_app

_NETWORK = """
import torch
from torch import nn


def spectral():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(12, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3))
    return network, {"input_size": (12, 24, 24), "crop_pct": 1.0, "mean": 0.4, "std": [0.2] * 12, "shown": (11, 3, 0)}
"""
_COUNT, _SIDE = 16, 24


def _values(number: int) -> np.ndarray:
    """Smooth random channels, with one bright spot in the last of them; every second picture has 16 bits."""
    chance = np.random.default_rng(number)
    values = chance.integers(0, 200, (12, _SIDE, _SIDE))
    row, col = chance.integers(4, _SIDE - 4, 2)
    values[11, row - 2 : row + 2, col - 2 : col + 2] = 255
    return values.astype(np.uint8) if number % 2 else (values * 257).astype(np.uint16)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    folder = tmp_path_factory.mktemp("spectral")
    (folder / "spectral.py").write_text(_NETWORK)
    for label in ("arrays", "tiffs"):
        (folder / "pictures" / label).mkdir(parents=True)
    for number in range(_COUNT):
        if number % 3:
            np.save(folder / "pictures" / "arrays" / f"{number:02d}.npy", _values(number))
        else:
            path = folder / "pictures" / "tiffs" / f"{number:02d}.tif"
            tifffile.imwrite(path, _values(number), photometric="minisblack", planarconfig="separate")
    Image.new("RGB", (30, 30)).save(folder / "pictures" / "three.png")
    np.save(folder / "pictures" / "numbers.npy", np.full((12, 9, 9), 3.5))
    spec = f"file:{folder / 'spectral.py'}:spectral"
    return kin.write_atlas(folder / "pictures", folder / "atlas", spec, layers=("0", "3"), batch_size=4)


@pytest.fixture(scope="module")
def session(atlas: Path) -> Session:
    return Session(atlas, trust_code=True)


def _number(path: str) -> int:
    return int(Path(path).stem)


def test_networks_of_12_channels_have_the_values_of_plain_torch(session: Session) -> None:
    network = load_model(session.atlas.manifest.model.spec, trust_code=True).module
    rows = patches(session.atlas, UnitId("3", 2), TopQuestion(k=100, duplicates="expand")).rows
    assert len(rows) == _COUNT
    for row in rows:
        values = torch.from_numpy(_values(_number(row.path)).astype(np.float32))
        levels = values / 257 if _number(row.path) % 2 == 0 else values
        with torch.inference_mode():
            expected = network((levels[None] - 0.4 * 255) / (0.2 * 255))[0, 2]
        assert row.activation == pytest.approx(float(expected.max()), abs=1e-4)
        assert (row.row, row.col) == divmod(int(expected.argmax()), expected.shape[1])
        top, left = 2 * row.row, 2 * row.col
        assert row.box == (top, left, top + 8, left + 8)
    reasons = {row.path: row.reason for row in session.atlas.skipped}
    assert "has 3 channels; the network takes 12" in reasons["three.png"]
    assert "are not between 0 and 1" in reasons["numbers.npy"]


def test_the_manifest_states_the_rule_of_values_and_what_is_shown(session: Session) -> None:
    how = session.atlas.manifest.preprocessing
    assert how.shown_channels == (11, 3, 0)
    assert "16-bit values / 257" in session.atlas.manifest.model_dump()["preprocessing"]["values"]


@pytest.mark.parametrize("number", [0, 1])
def test_pictures_show_the_chosen_channels_of_tiff_and_array(session: Session, number: int) -> None:
    name = f"arrays/{number:02d}.npy" if number % 3 else f"tiffs/{number:02d}.tif"
    image = session.atlas.find_image(name)
    shown = np.asarray(picture(session.atlas, read_image(session.atlas, image)))
    levels = _values(number)[[11, 3, 0]] / (1 if number % 2 else 257)
    assert np.array_equal(shown, np.rint(levels).astype(np.uint8).transpose(1, 2, 0))


def test_top_explain_project_optimise_and_eigen_work_on_12_channels(
    session: Session, atlas: Path, tmp_path: Path
) -> None:
    opened = unitscope.open_atlas(str(atlas), trust_code=True)
    (first, *_) = opened.top("3:2", k=3).to_pylist()
    explained = opened.explain(first["image_id"], layer="3", k=5).to_pylist()
    outside = tmp_path / "another.npy"
    np.save(outside, np.moveaxis(_values(_number(first["path"])), 0, 2))
    again = invoke("explain", atlas, outside, "--layer", "3", "-k", 5, "--trust-code", "--json")
    assert [row["channel"] for row in json.loads(again.stdout)["rows"]] == [row["channel"] for row in explained]
    sheet = invoke("top", atlas, "3:2", "-k", 3, "--sheet", tmp_path / "sheet.png")
    assert sheet.exit_code == 0
    (projected,) = opened.project("3:2", k=1).to_pylist()
    assert projected["method"] == "deconvnet"
    assert "shows the channels 11, 3, 0 of 0 to 11 as red, green and blue" in projected["note"]
    (made,) = opened.optimise("0:1", steps=2).to_pylist()
    assert "shows the channels 11, 3, 0" in made["note"]
    for row in (projected, made):
        assert Image.open(atlas / row["path"]).mode == "RGB"
    for number in (0, 1):
        assert eigen_picture(session, UnitId("0", 1), EigenQuestion(k=9, size=3), number).size == (3, 3)
    assert {row["input_channels"] for row in opened.filters().to_pylist()} == {12}
    neighbours = opened.neighbors(first["image_id"], k=2).to_pylist()
    assert len(neighbours) == 2


def test_pages_and_patches_of_12_channels_are_served(atlas: Path, session: Session) -> None:
    row = patches(session.atlas, UnitId("3", 2), TopQuestion(k=1)).rows[0]
    with TestClient(
        create_app(Settings(atlases=(atlas,), corpora=recorded_corpora(atlas), trust_code=True)), ORIGIN
    ) as client:
        page = client.get("/a/atlas/layers/3/units/2")
        assert page.status_code == 200
        (address, *_) = re.findall(r'src="([^"]*/patches/[^"]*)"', page.text)
        for part in (address.replace("&amp;", "&"), f"/api/v1/atlases/atlas/images/{row.image_id}.png"):
            served = client.get(part)
            assert served.status_code == 200, served.text
            assert Image.open(io.BytesIO(served.content)).size[0] > 0
