"""Whatever goes wrong: problem details with a readable detail, and nothing of the server's disk."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.services.conftest import UNIT
from unitscope_schemas.addresses import without_paths
from unitscope_schemas.answers.served import Problem


def problem(answer: Any, status: int) -> Problem:
    """The answer as a problem of this status."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate(answer.json())
    assert found.status == status
    assert found.request_id == answer.headers["x-request-id"]
    return found


def test_an_unknown_unit_is_told_the_valid_range(client: TestClient) -> None:
    found = problem(client.get("/api/v1/atlases/tiny/layers/_blocks.5/units/80/patches"), 404)
    assert "0 to 79" in found.detail
    assert found.instance == "/api/v1/atlases/tiny/layers/_blocks.5/units/80/patches"


def test_an_unknown_layer_is_told_the_layers(client: TestClient) -> None:
    assert "_blocks.0, _blocks.5, _blocks.15" in problem(client.get("/api/v1/atlases/tiny/layers/fc"), 404).detail


def test_an_unknown_atlas_is_told_the_atlases(client: TestClient) -> None:
    assert "there are tiny" in problem(client.get("/api/v1/atlases/big/layers"), 404).detail


def test_an_unknown_image_and_an_ambiguous_one_differ(client: TestClient) -> None:
    assert "of this atlas" in problem(client.get("/api/v1/atlases/tiny/images/ffffffffffff"), 404).detail
    assert "blobs/999.jpg" in problem(client.get("/api/v1/atlases/tiny/images?path=blobs/999.jpg"), 404).detail


@pytest.mark.parametrize("address", ["/api/v1/nothing", "/api/v2/atlases", "/nothing"])
def test_an_unknown_address_is_a_problem(client: TestClient, address: str) -> None:
    problem(client.get(address), 404)


def test_a_wrong_method_names_the_right_one(client: TestClient) -> None:
    answer = client.delete(UNIT)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert "GET" in problem(answer, 405).detail


def test_one_document_has_no_rows(client: TestClient) -> None:
    assert ".json only" in problem(client.get(f"{UNIT}/histogram.csv"), 400).detail


def test_a_browser_gets_a_page_about_its_mistake(client: TestClient) -> None:
    answer = client.get("/a/tiny/layers/_blocks.5/units/999", headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "0 to 79" in answer.text


def test_a_broken_body_is_a_problem(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    problem(client.post("/api/v1/atlases/tiny/neighbors", content=b"{", headers=headers), 400)
    answer = client.post("/api/v1/atlases/tiny/neighbors", json={"vectors": [], "speed": 3})
    assert "speed" in problem(answer, 400).detail


def test_a_damaged_atlas_is_the_servers_fault_and_tells_no_path(
    served: Any, tiny_atlas: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_atlas, broken)
    next((broken / "units").glob("_blocks.5-*")).unlink()
    client = served(atlases=(broken,))
    found = problem(client.get("/api/v1/atlases/broken/layers/_blocks.5/units/3/patches"), 500)
    assert str(tmp_path) not in found.model_dump_json()
    assert "unitscope verify" in found.detail
    assert "units/_blocks.5" in caplog.text
    assert client.get("/api/v1/atlases/broken/layers/_blocks.0/units/3/patches").status_code == 200


def test_an_unexpected_failure_keeps_its_reason_to_itself(client: TestClient, tiny_atlas: Path) -> None:
    """An atlas whose units table is of another kind: no error of ours foresees that."""
    app_state: Any = client.app.state.app_state  # type: ignore[attr-defined]
    atlas = app_state.atlases.newest("tiny").atlas
    kept = atlas.units("_blocks.0")
    atlas._units["_blocks.0"] = kept.drop_columns(["status"])
    try:
        found = problem(client.get("/api/v1/atlases/tiny/layers/_blocks.0/units/3"), 500)
    finally:
        atlas._units["_blocks.0"] = kept
    assert "status" not in found.detail
    assert "Traceback" not in found.model_dump_json()


def test_no_answer_tells_where_the_atlas_or_the_corpus_lies(
    client: TestClient, tiny_atlas: Path, tiny_corpus: Path
) -> None:
    image = client.get(f"{UNIT}/patches?k=1").json()["rows"][0]["image_id"]
    addresses = [
        "/", "/docs", "/openapi.json", "/metrics", "/version", "/a/tiny", "/a/tiny/skipped",
        "/a/tiny/layers/_blocks.5", "/a/tiny/layers/_blocks.5/units/3", f"/a/tiny/images/{image}",
        "/api/v1/atlases", "/api/v1/atlases/tiny", "/api/v1/atlases/tiny/manifest", "/api/v1/atlases/tiny/skipped",
        f"/api/v1/atlases/tiny/images/{image}", "/api/v1/atlases/tiny/images/000000", f"{UNIT}/patches",
    ]  # fmt: skip
    for address in addresses:
        text = client.get(address).text
        for secret in (tiny_atlas.parent, tiny_corpus.parent, Path.cwd()):
            assert str(secret) not in text, address


def test_the_manifest_keeps_only_the_last_names_of_paths(client: TestClient) -> None:
    manifest = client.get("/api/v1/atlases/tiny/manifest").json()
    assert manifest["corpus"]["root"] == "tiny"
    assert manifest["config"]["atlas"] == "tiny"
    assert manifest["model"]["spec"] == "efficientnet-lite:0"


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("part /srv/data/atlas/hot.duckdb is missing", "part hot.duckdb is missing"),
        ("weights '/home/me/w.pt' differ", "weights 'w.pt' differ"),
        (r"cannot read C:\data\x.bin", "cannot read x.bin"),
        ("picture 'blobs/001.jpg' is gone", "picture 'blobs/001.jpg' is gone"),
        ("ask for 3/4 of it", "ask for 3/4 of it"),
    ],
)
def test_messages_lose_absolute_paths_only(text: str, public: str) -> None:
    assert without_paths(text) == public


def test_a_request_id_comes_back(client: TestClient) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/livez", headers={"X-Request-ID": "no spaces"}).headers["x-request-id"] != "no spaces"


def test_nan_becomes_null_in_json() -> None:
    from unitscope_schemas.formats import json_bytes

    assert json.loads(json_bytes({"a": [float("nan"), float("-inf"), 1.5]})) == {"a": [None, None, 1.5]}
