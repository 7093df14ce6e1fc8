"""The commands project, filters, eigen and sheet."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unitscope
from tests.unitscope.test_cli import invoke

UNIT = "_blocks.5:3"


@pytest.fixture(scope="module")
def own_atlas(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to which pictures may be added."""
    atlas = tmp_path_factory.mktemp("commanded") / "tiny"
    shutil.copytree(tiny_atlas, atlas)
    return atlas


def test_project_prints_what_python_answers_and_writes_the_stored_pictures(own_atlas: Path, tmp_path: Path) -> None:
    words = ["project", own_atlas, UNIT, "--method", "guided", "-k", 4]
    done = invoke(*words, "--json", "--out", tmp_path / "out", "--sheet", tmp_path / "unit.html")
    rows = json.loads(done.stdout)["rows"]
    table = unitscope.open_atlas(str(own_atlas)).project(UNIT, method="guided", k=4)
    assert [row["id"] for row in rows] == table["id"].to_pylist()
    written = sorted((tmp_path / "out").iterdir())
    assert [file.read_bytes() for file in written] == [(own_atlas / row["path"]).read_bytes() for row in rows]
    assert (tmp_path / "unit.html").read_text().count("<image ") == 8
    assert "there is no max-pooling before this layer" in done.stderr
    refused = invoke(*words, "--sheet", tmp_path / "unit.gif")
    assert "ending is one of .png, .svg, .html" in str(refused.exception)


def test_several_units_are_projected_by_one_command_a_folder_each(own_atlas: Path, tmp_path: Path) -> None:
    words = ["project", own_atlas, "_blocks.0", "--top", 1, UNIT, "-k", 2, "--json", "--workers", 1]
    out, sheet = tmp_path / "out", tmp_path / "units.svg"
    rows = json.loads(invoke(*words, "--out", out, "--sheet", sheet).stdout)["rows"]
    units = list(dict.fromkeys(row["unit"] for row in rows))
    assert [unit.partition(":")[0] for unit in units] == ["_blocks.0", "_blocks.5"]
    assert sorted(path.name for path in out.iterdir()) == sorted(units)
    for unit in units:
        own = [row for row in rows if row["unit"] == unit]
        written = [path.read_bytes() for path in sorted((out / unit).iterdir())]
        assert written == [(own_atlas / row["path"]).read_bytes() for row in own]
    assert sheet.read_text().count("<image ") == 2 * len(rows)


def test_filters_are_printed_and_drawn(own_atlas: Path, tmp_path: Path) -> None:
    done = invoke("filters", own_atlas, "--json", "--out", tmp_path / "filters.png")
    page = json.loads(done.stdout)
    assert page["layer"] == "_conv_stem"
    assert len(page["rows"]) == 32
    drawn = np.asarray(Image.open(tmp_path / "filters.png"))
    scale = page["rows"][0]["scale"]
    weight = unitscope.open_atlas(str(own_atlas)).filters()["minimum"][0].as_py()
    darkest = round(128 + 127 * weight / scale)
    assert (drawn == darkest).any()
    assert "has no filters" in str(invoke("filters", own_atlas, "--layer", "_blocks.0").exception)


def test_eigen_says_how_many_patches_it_rests_on(own_atlas: Path, tmp_path: Path) -> None:
    done = invoke("eigen", own_atlas, UNIT, "--size", 20, "-k", 30, "--json", "--out", tmp_path / "eigen.svg")
    facts = json.loads(done.stdout)
    found = unitscope.open_atlas(str(own_atlas)).eigen_patches(UNIT, k=30, size=20)
    assert (facts["patches"], facts["left_out"]) == (found.used, found.left_out)
    assert facts["shares_of_variance"] == found.shares.tolist()
    assert (tmp_path / "eigen.svg").read_text().count("<image ") == 1 + len(found.shares)


def test_the_sheet_is_made_by_one_command(own_atlas: Path, tmp_path: Path) -> None:
    out, layers = tmp_path / "sheet.svg", "_blocks.0,_blocks.15"
    words = ["sheet", own_atlas, "--out", out, "--layers", layers, "--units-per-layer", 1, "--json"]
    assert json.loads(invoke(*words, "--no-optimised").stdout)["pictures"] == 2 * 18
    facts = json.loads(invoke(*words, "--recipe", "none", "--seed", 5).stdout)
    assert (facts["layers"], facts["pictures"]) == (2, 2 * 19)
    text = out.read_text()
    assert text.count("<image ") == 2 * 19
    assert ">_blocks.0</text>" in text
    atlas = unitscope.open_atlas(str(own_atlas))
    made = [row for row in rows_made(own_atlas) if row["method"] == "none" and row["seed"] == 5]
    assert len(made) == 2
    for row in made:
        assert f"made: {row['activation']:.3g}, corpus maximum {row['corpus_maximum']:.3g}" in text
        assert row["corpus_maximum"] == atlas.top(row["unit"], k=1, duplicates="expand")["activation"][0].as_py()


def rows_made(atlas: Path) -> list[dict[str, Any]]:
    """All stored inputs."""
    notebook = unitscope.open_atlas(str(atlas))
    folders = {path.parent for path in (atlas / "visuals").rglob("*.json")}
    return [
        row
        for folder in folders
        for row in notebook.visualisations(f"{folder.parent.name}:{folder.name}").to_pylist()
        if row["kind"] == "optimised"
    ]
