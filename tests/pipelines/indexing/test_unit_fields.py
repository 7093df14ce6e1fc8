"""Effective boxes of units (entry 30), against gradients of plain PyTorch on the units' own exemplars."""

import math
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.pictures import blobs, stripes
from unitscope_pipelines.cluster.resources import resources
from unitscope_pipelines.derived.sql_catalog import write_catalog
from unitscope_pipelines.indexing.compaction import compact
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.ranking import unit_fields
from unitscope_pipelines.indexing.ranking.unit_fields import RankedVersion, exemplar_count, with_unit_fields
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_pipelines.indexing.verification.forwards import scan_plan
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import store_of
from unitscope_pipelines.vision.models.models import load_model
from unitscope_schemas.geometry import Location, ReceptiveField, Size
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.progress import Progress
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import LayerSpec, UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.units import shown_box

EXEMPLARS = 3
PICTURES = 24
NETWORK = """
import torch
from torch import nn
from timm.models.vision_transformer import VisionTransformer

LOOK = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        widths = (3, 8, 8, 12, 12, 12)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 5, stride, 2), nn.BatchNorm2d(after), nn.ReLU())
            for before, after, stride in zip(widths, widths[1:], (2, 1, 2, 2, 1))
        )
        self.head = nn.Linear(12, 4)
        with torch.no_grad():  # unit 0 of the last block is dead, no other
            for block in self.blocks:
                block[1].bias += 1
                block[0].weight[:, :, 2, 2] *= 6
            self.blocks[4][1].weight[0], self.blocks[4][1].bias[0] = 0, -1

    def forward(self, images):
        for block in self.blocks:
            images = block(images)
        return self.head(images.mean((2, 3)))


def deep():
    return Deep(), LOOK


def tokens():
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=2, reg_tokens=2), LOOK


def cut():
    network = Deep()
    network.blocks[2] = nn.Sequential(network.blocks[2], Detached())
    return network, LOOK


class Detached(nn.Module):
    def forward(self, images):
        return images.detach()


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.deep = Deep()

    def forward(self, images):
        return self.deep(images + images.mean(0))


def beside():
    return Mean(), LOOK
"""
WHOLE = {"deep": ("blocks.3", "blocks.4"), "tokens": ("blocks.0", "blocks.1")}
"""Layers of each network whose units may see the whole input."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "deep_network.py"
    path.write_text(NETWORK)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        (blobs if number % 2 else stripes)(number, 32, 32).save(folder / f"{number:02d}.png")
    return folder


def indexed(network: Path, name: str, corpus: Path, atlas: Path, **options: Any) -> tuple[Manifest, list[Progress]]:
    """The manifest of a run, and what it told of measuring boxes."""
    settings = {"weights": "random:3", "batch_size": 4, "workers": 1, "trust_code": True, "field_exemplars": EXEMPLARS}
    told: list[Progress] = []
    config = IndexConfig(
        corpus=str(corpus), atlas=str(atlas), model=f"file:{network}:{name}", **{**settings, **options}
    )
    manifest = index(config, told.append)
    return manifest, [progress for progress in told if progress.stage == "boxes"]


@pytest.fixture(scope="module", params=WHOLE)
def measured(
    request: pytest.FixtureRequest, network: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory,
    ray_session: None,
) -> tuple[str, Path]:  # fmt: skip
    atlas = tmp_path_factory.mktemp("atlas") / request.param
    layers = (*(f"blocks.{number}" for number in range(5 if request.param == "deep" else 2)), "head")
    indexed(network, request.param, corpus, atlas, layers=layers)
    return request.param, atlas


def energies(network: Path, name: str, atlas: Atlas, unit: UnitId, corpus: Path, k: int) -> list[tuple[Location, Any]]:
    """Place and squared gradient of the unit's peak on each of its first exemplars, by plain PyTorch."""
    model = load_model(f"file:{network}:{name}", "random:3", trust_code=True).module
    found = []
    for row in patches(atlas, unit, TopQuestion(k=k)).rows:
        pixels = torch.from_numpy(np.array(Image.open(corpus / row.path))).permute(2, 0, 1)[None]
        image = ((pixels / 255 - 0.5) / 0.25).requires_grad_()
        kept: list[torch.Tensor] = []
        module: nn.Module = model.get_submodule(unit.layer)
        handle = module.register_forward_hook(lambda _module, _inputs, output, kept=kept: kept.append(output))
        model(image)
        handle.remove()
        grid = kept[0][0, 3:, unit.channel] if name == "tokens" else kept[0][0, unit.channel].flatten()
        (gradient,) = torch.autograd.grad(grid.max(), image)
        found.append((Location(row.row, row.col), gradient[0].square().sum(0).numpy()))
    return found


def share(field: ReceptiveField, size: Size, place: Location, energy: Any) -> float:
    top, left, bottom, right = field.model_copy(update={"effective": size}).effective_box_at(place)
    return float(energy[top:bottom, left:right].sum() / energy.sum())


def test_the_box_of_a_unit_is_what_its_own_exemplars_need_and_a_margin(
    measured: tuple[str, Path], network: Path, corpus: Path
) -> None:
    name, folder = measured
    atlas = Atlas(folder)
    for layer in WHOLE[name]:
        field, sizes = atlas.layer(layer).spec.receptive_field, set()
        assert field.covers_input
        for channel in range(atlas.layer(layer).spec.units):
            unit = UnitId(layer, channel)
            own = atlas.field(unit).effective
            if atlas.unit(unit).status == "dead":
                assert own == field.effective
                continue
            needed = []
            for place, energy in energies(network, name, atlas, unit, corpus, EXEMPLARS):
                if place.row >= 0:
                    sides = range(1, 33)
                    needed.append(next(side for side in sides if share(field, Size(side, side), place, energy) >= 0.9))
                    assert share(field, own, place, energy) >= 0.9
            height = min(32, math.ceil((1 + 0.7 / len(needed)) * max(needed)))
            assert abs(own.height - height) <= 1, "a pixel whose energy is the last thousandth may be rounded away"
            sizes.add(own)
        assert len(sizes) > 1 or name == "tokens"


def test_every_interface_shows_the_box_of_the_unit(measured: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = measured
    atlas = Atlas(folder)
    write_catalog([folder], tmp_path / "catalog.duckdb")
    with duckdb.connect(tmp_path / "catalog.duckdb") as database:
        for layer in ("blocks.0", *WHOLE[name]):
            for channel in range(0, atlas.layer(layer).spec.units, 3):
                unit = UnitId(layer, channel)
                field = atlas.field(unit)
                rows = patches(atlas, unit, TopQuestion(k=5)).rows
                boxes = [list(field.effective_box_at(Location(row.row, row.col))) for row in rows]
                assert [list(row.effective_box) for row in rows] == boxes
                if layer in WHOLE[name]:
                    assert [shown_box(field, row) for row in rows] == [row.effective_box for row in rows]
                sides = "[effective_box_top, effective_box_left, effective_box_bottom, effective_box_right]"
                found = database.execute(f"SELECT {sides} FROM top_patches('{layer}', {channel}, 5)").fetchall()
                assert [box for (box,) in found] == boxes


def test_layers_whose_units_see_less_keep_one_box(network: Path, measured: tuple[str, Path]) -> None:
    name, folder = measured
    atlas = Atlas(folder)
    for entry in atlas.manifest.layers:
        fields = {atlas.field(UnitId(entry.spec.name, unit)).effective for unit in range(entry.spec.units)}
        if entry.spec.name not in WHOLE[name]:
            assert fields == {entry.spec.receptive_field.effective}
    assert verify(folder, 2, 0, trust_code=True).faults == []


def test_new_pictures_cost_gradients_of_the_units_whose_exemplars_they_change(
    network: Path, corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(corpus, pictures)
    first, told = indexed(network, "deep", pictures, tmp_path / "a", layers=("blocks.4",))
    assert told[-1].done == told[-1].total == EXEMPLARS * 11
    before = Atlas(tmp_path / "a")
    for number in range(100, 104):
        blobs(number, 32, 32).save(pictures / f"{number}.png")
    _, told = indexed(network, "deep", pictures, tmp_path / "a", layers=("blocks.4",))
    after = Atlas(tmp_path / "a")
    units = [UnitId("blocks.4", channel) for channel in range(12)]

    def first_ids(atlas: Atlas, unit: UnitId) -> list[str]:
        return [row.image_id for row in patches(atlas, unit, TopQuestion(k=EXEMPLARS)).rows]

    same = [unit for unit in units[1:] if first_ids(before, unit) == first_ids(after, unit)]
    assert 0 < len(same) < 11
    assert told[-1].total == EXEMPLARS * (11 - len(same))
    assert all(before.field(unit) == after.field(unit) for unit in same)
    fresh, _ = indexed(network, "deep", pictures, tmp_path / "b", layers=("blocks.4",))
    assert [Atlas(tmp_path / "b").field(unit) for unit in units] == [after.field(unit) for unit in units]
    assert first.version != fresh.version


def test_an_atlas_that_has_none_is_measured_when_that_is_asked_for(
    network: Path, corpus: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_fields, "MOST_EXEMPLARS", 4)
    monkeypatch.setattr(unit_fields, "LEAST_SAMPLES", 0)
    monkeypatch.setattr(unit_fields, "_FORWARDS_EACH", 1000)

    def run(count: int | None) -> tuple[Manifest, list[Progress]]:
        return indexed(network, "deep", corpus, tmp_path / "a", layers=("blocks.4",), field_exemplars=count)

    none, told = run(None)  # units are many for so few images
    assert none.layers[0].fields is None and "--field-exemplars" in told[-1].note
    with_fields, told = run(2)
    assert told[-1].total == 22 and with_fields.version == none.version and with_fields.layers[0].field_exemplars == 2
    assert run(2)[1] == run(None)[1] == [] and run(2)[0].layers == with_fields.layers
    more, told = run(4)
    assert told[-1].total == 44 and more.layers[0].fields != with_fields.layers[0].fields
    assert run(0)[0].layers[0].fields is None
    atlas = Atlas(tmp_path / "a")
    assert atlas.field(UnitId("blocks.4", 1)) == atlas.layer("blocks.4").spec.receptive_field


def test_exemplars_that_are_gone_or_others_are_counted(
    network: Path, corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    pictures, folder = tmp_path / "pictures", tmp_path / "a"
    shutil.copytree(corpus, pictures)
    manifest, _ = indexed(network, "deep", pictures, folder, layers=("blocks.4",), field_exemplars=0)
    atlas, store = Atlas(folder), store_of(folder)
    rows = patches(atlas, UnitId("blocks.4", 1), TopQuestion(k=EXEMPLARS)).rows
    lost = {row.path for row in rows}
    for number, path in enumerate(sorted(lost)):
        (pictures / path).unlink() if number else blobs(999, 32, 32).save(pictures / path)
    shown = [patches(atlas, UnitId("blocks.4", unit), TopQuestion(k=EXEMPLARS)).rows for unit in range(12)]
    lost_count = sum(row.path in lost for of_unit in shown for row in of_unit)
    told: list[Progress] = []
    plan = scan_plan(manifest, store, str(pictures), trust_code=True)
    workers = resources(1, "cpu")
    (entry,) = with_unit_fields(RankedVersion.of(manifest, store), plan, EXEMPLARS, None, workers, told.append)
    assert told[-1].note == f"{lost_count} exemplars gave no gradient or could not be read again"
    assert entry.fields is not None
    heights = read_part(store, entry.fields)["effective_height_px"].to_pylist()
    assert heights[:2] == [None, None], "neither the dead unit nor the one whose exemplars are all gone"
    assert any(heights)


def test_compaction_keeps_boxes_and_needs_no_gradient(
    network: Path, corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    indexed(network, "deep", corpus, tmp_path / "a", layers=("blocks.4",))
    unit, before = UnitId("blocks.4", 1), Atlas(tmp_path / "a")
    remove(tmp_path / "a", [patches(before, unit, TopQuestion(k=1)).rows[0].path])
    told: list[Progress] = []
    compact(tmp_path / "a", 1, told.append)
    assert "boxes" not in {progress.stage for progress in told}
    assert Atlas(tmp_path / "a").field(unit) == before.field(unit)


@pytest.mark.parametrize("name", ["cut", "beside"])
def test_layers_without_gradients_keep_theirs_and_values_of_batches_are_measured_alone(
    name: str, network: Path, corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    layer = "deep.blocks.4" if name == "beside" else "blocks.4"
    manifest, told = indexed(network, name, corpus, tmp_path / "a", layers=(layer,), allow_batch_dependence=True)
    atlas, own = Atlas(tmp_path / "a"), manifest.layers[0].spec.receptive_field
    assert (own.unmeasured is not None) == (name == "cut")
    assert [progress.total for progress in told] == ([] if name == "cut" else [EXEMPLARS * 11] * len(told))
    assert all(atlas.field(UnitId(layer, unit)) == own for unit in range(12)) == (name == "cut")


def test_how_many_exemplars_are_measured_follows_the_corpus(
    measured: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_fields, "MOST_EXEMPLARS", 4)
    spec = Atlas(measured[1]).layer(WHOLE[measured[0]][-1]).spec

    def layer(units: int) -> LayerSpec:
        return spec.model_copy(update={"units": units})

    assert exemplar_count(None, [layer(1312)], 422) == 3
    assert exemplar_count(None, [layer(1312)], 1_000_000) == 4
    assert exemplar_count(None, [layer(10_000)], 422) == 0
    assert exemplar_count(None, [layer(10_000)], 40_000) == 2
    assert exemplar_count(9, [layer(10_000)], 422) == 9
    assert exemplar_count(None, [], 422) == 4
