"""Answers that never change, and how a client knows."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.services.conftest import UNIT, bearer
from tests.tables import manifest_of
from unitscope_services.atlas.database import Database


@pytest.mark.parametrize(
    "address", [f"{UNIT}/patches?k=3", f"{UNIT}/patches.parquet?k=3", UNIT, "/api/v1/atlases", "/a/tiny", "/"]
)
def test_a_known_etag_is_answered_without_a_query(
    client: TestClient, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = client.get(address)
    assert first.headers["etag"].startswith('"')

    def asked(*_: Any) -> None:
        raise AssertionError("a query ran")

    monkeypatch.setattr(Database, "_result", asked)
    again = client.get(address, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == first.headers["cache-control"]


def test_the_etag_differs_with_everything_that_changes_the_answer(client: TestClient) -> None:
    addresses = [
        f"{UNIT}/patches", f"{UNIT}/patches?k=3", f"{UNIT}/patches?k=4", f"{UNIT}/patches.csv?k=3",
        f"{UNIT}/patches?k=3&order=asc", f"{UNIT}/labels", UNIT.replace("units/3", "units/4") + "/patches?k=3",
        "/a/tiny/layers/_blocks.5",
    ]  # fmt: skip
    assert len({client.get(address).headers["etag"] for address in addresses}) == len(addresses)


def test_the_etag_is_the_same_on_another_server_and_for_another_order_of_parameters(
    client: TestClient, served: Any, tiny_atlas: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_atlas, tmp_path / "tiny")
    replica = served(atlases=(tmp_path / "tiny",))
    here = client.get(f"{UNIT}/patches?k=3&label=blobs")
    there = replica.get(f"{UNIT}/patches?label=blobs&k=3")
    assert here.headers["etag"] == there.headers["etag"]
    assert here.json() == there.json()


def test_only_an_address_with_the_version_is_kept_for_good(client: TestClient) -> None:
    version = client.get("/api/v1/atlases/tiny").json()["version"]
    assert client.get(f"{UNIT}/patches").headers["cache-control"] == "public, no-cache"
    for_good = client.get(f"{UNIT}/patches?v={version}")
    assert for_good.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert for_good.headers["etag"] == client.get(f"{UNIT}/patches").headers["etag"]
    assert client.get(f"{UNIT}/patches?v=0123").headers["cache-control"] == "public, no-cache"


def test_what_needs_a_key_is_not_for_shared_caches(served: Any, key_file: Path) -> None:
    closed = served(key_file=key_file)
    assert closed.get(UNIT, headers=bearer("reader")).headers["cache-control"] == "private, no-cache"
    half_open = served(key_file=key_file, anonymous_read=True)
    assert half_open.get(UNIT).headers["cache-control"] == "public, no-cache"


def test_problems_are_never_kept(client: TestClient) -> None:
    assert client.get("/api/v1/nothing").headers["cache-control"] == "no-store"


def test_head_has_the_headers_of_get_and_no_body(client: TestClient) -> None:
    answer = client.head(f"{UNIT}/patches")
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["etag"] == client.get(f"{UNIT}/patches").headers["etag"]


def test_a_new_version_is_served_without_a_restart(served: Any, tiny_atlas: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "tiny"
    shutil.copytree(tiny_atlas, atlas)
    client = served(atlases=(atlas,))
    before = client.get(UNIT)
    manifest = manifest_of(atlas).model_dump_json()
    version = client.get("/api/v1/atlases/tiny").json()["version"]
    renewed = manifest.replace(version, "feedfeedfeedfeed")
    for part in list(atlas.rglob(f"*{version}*")):
        shutil.copy(part, part.with_name(part.name.replace(version, "feedfeedfeedfeed")))
    assert renewed != manifest
    (atlas / "next").write_text(renewed)
    (atlas / "next").rename(atlas / "manifest.json")
    assert client.get("/api/v1/atlases/tiny").json()["version"] == "feedfeedfeedfeed"
    assert client.get(UNIT).headers["etag"] != before.headers["etag"]


def test_a_version_that_cannot_be_opened_leaves_the_one_before(
    served: Any, tiny_atlas: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    atlas = tmp_path / "tiny"
    shutil.copytree(tiny_atlas, atlas)
    client = served(atlases=(atlas,))
    (atlas / "manifest.json").write_text("{}")
    assert client.get(UNIT).status_code == 200
    assert "the one before stays" in caplog.text
    (atlas / "manifest.json").unlink()
    assert client.get(UNIT).status_code == 200
