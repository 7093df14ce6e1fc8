"""The commands of upkeep: what they print, and their exit codes."""

import json
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from tests.tables import manifest_of, turn_into_version_2
from unitscope.cli import app
from unitscope_services.web.app import Settings, create_app

UNIT = "_blocks.5:3"


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def atlas(tiny_atlas: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_atlas, tmp_path / "atlas")


def top(*words: object) -> list[str]:
    return [row["image_id"] for row in json.loads(invoke("top", *words, "--json").stdout)["rows"]]


def test_what_the_command_removes_is_gone_from_a_running_server_and_comes_back(atlas: Path) -> None:
    first, *others = top(atlas, UNIT, "-k", 10)
    with TestClient(create_app(Settings(atlases=(atlas,), corpora=recorded_corpora(atlas))), ORIGIN) as client:
        unit, image = "/a/atlas/layers/_blocks.5/units/3", f"/api/v1/atlases/atlas/images/{first}"
        assert first in client.get(unit).text
        would = json.loads(invoke("remove", atlas, first[:12], "--dry-run", "--json").stdout)
        assert (would["removed"][0]["image_id"], would["images"], would["dry_run"]) == (first, 39, True)
        assert client.get(f"{image}.json").status_code == 200
        done = invoke("remove", atlas, first[:12])
        assert (done.exit_code, "stale    1" in done.stdout) == (0, True)
        assert "unitscope compact" in done.stderr
        page = client.get(unit).text
        assert first not in page
        assert "statistics still count 1 removed image, shown nowhere" in page
        assert client.get(f"{image}.json").status_code == 404
        assert client.get(f"{image}.jpg").status_code == 404
        assert client.get("/api/v1/atlases/atlas").json()["stale_images"] == 1
        assert top(atlas, UNIT) == others
        invoke("remove", atlas, first[:12], "--restore")
        assert first in client.get(unit).text
    assert invoke("remove", atlas, "no/such.jpg").exception.exit_code == 5


def test_an_earlier_version_is_asked_by_its_name_until_it_is_collected(atlas: Path) -> None:
    before = top(atlas, UNIT)
    invoke("remove", atlas, before[0])
    listed = json.loads(invoke("versions", atlas, "--json").stdout)["rows"]
    assert [(row["present"], row["images"], row["stale_images"]) for row in listed] == [(True, 39, 1), (False, 40, 0)]
    earlier = listed[1]["version"]
    assert top(atlas, UNIT, "--version", earlier[:8]) == before
    assert "kept      1\nversions  1\nfiles     1\n" in invoke("gc", atlas, "--keep", 1).stdout
    assert invoke("top", atlas, UNIT, "--version", earlier).exception.exit_code == 5
    assert invoke("gc", atlas, "--keep", 0).exit_code != 0


def test_an_atlas_of_the_present_format_has_nothing_to_migrate(atlas: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in atlas.rglob("*")}
    done = invoke("migrate", atlas, "--dry-run", "--json")
    assert json.loads(done.stdout) == {"format_version": 3, "versions": 1, "migrated": 0, "dry_run": True}
    assert "nothing to migrate" in invoke("migrate", atlas).stderr
    assert {path: path.stat().st_mtime_ns for path in atlas.rglob("*")} == before
    assert invoke("migrate", atlas / "nowhere").exception.exit_code == 5


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"format_version": 99}, "newer: use the unitscope that wrote it (9.1) or a later one"),
        ({"format_version": 1}, "no migration leads from there"),
        ({"format_version": None}, "no migration leads from there"),
        ({"format_version": 1, "unitscope_version": None}, "it does not say which"),
    ],
)
def test_another_format_is_refused_with_what_would_do(changed: dict[str, object], words: str, atlas: Path) -> None:
    content = json.loads((atlas / "manifest.json").read_text()) | {"unitscope_version": "9.1"} | changed
    (atlas / "manifest.json").write_text(json.dumps(content))
    for command in (["migrate", atlas, "--dry-run"], ["migrate", atlas], ["top", atlas, UNIT]):
        error = invoke(*command).exception
        assert (error.exit_code, words in str(error)) == (6, True), str(error)


def test_the_doctor_names_each_fault_with_what_would_mend_it(tmp_path: Path, ray_session: None) -> None:
    done = invoke("doctor", "--folder", tmp_path / "nowhere", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.exit_code == 4
    assert [name for name, check in checks.items() if not check["ok"]] == ["disk"]
    assert "No such file or directory" in checks["disk"]["found"]
    assert "name another folder" in checks["disk"]["mend"]
    assert {"packages", "torch", "devices", "weights", "ray", "duckdb", "faiss", "shared memory"} < checks.keys()


def test_an_atlas_of_the_format_before_is_brought_to_the_present_one_without_a_forward(atlas: Path) -> None:
    sealed, question = manifest_of(atlas).version, ("top", atlas, UNIT, "--json")
    answer = invoke(*question).stdout
    turn_into_version_2(atlas)
    before = {path for path in atlas.rglob("*") if path.is_file()}
    assert invoke(*question).stdout == answer
    would = json.loads(invoke("migrate", atlas, "--dry-run", "--json").stdout)
    assert would == {"format_version": 3, "versions": 1, "migrated": 1, "dry_run": True}
    assert {path for path in atlas.rglob("*") if path.is_file()} == before
    assert "unitscope gc" in invoke("migrate", atlas).stderr
    new = {path.relative_to(atlas).parts[0] for path in atlas.rglob("*") if path.is_file()} - {
        path.relative_to(atlas).parts[0] for path in before
    }
    assert new <= {"groups", "hot-images", "hot-files"}
    assert (manifest_of(atlas).version, manifest_of(atlas).unread) == (sealed, [])
    assert invoke(*question).stdout == answer
    invoke("gc", atlas, "--keep", 1)
    assert not list(atlas.glob("hot-images-*")) and invoke(*question).stdout == answer
    assert json.loads(invoke("migrate", atlas, "--json").stdout)["migrated"] == 0
