"""A server of an atlas in an object store: the pages and pictures of a local one, and its new versions."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from starlette.testclient import TestClient

from tests.pipelines.storage.test_object_store import uploaded
from tests.services.conftest import ORIGIN, UNIT
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_services.web.app import Settings, create_app


@pytest.fixture
def address(tiny_atlas: Path, bucket: Any) -> str:
    return uploaded(tiny_atlas, bucket, "served/tiny")


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_server_answers_as_from_a_folder_and_sees_a_new_version_soon(
    address: str, client: TestClient, tiny_corpus: Path, tmp_path: Path
) -> None:
    settings = Settings(
        atlases=(address,), corpora=(str(tiny_corpus),), cache=tmp_path, cache_gb=0.1, annotations=tmp_path.parent
    )
    with TestClient(create_app(settings), ORIGIN) as remote:
        for question in (f"{UNIT}/patches", f"{UNIT}/patches.csv?k=30", "/a/tiny/layers/_blocks.5/units/3", "/a/tiny"):
            assert remote.get(question).text == client.get(question).text
        rows = remote.get(f"{UNIT}/patches").json()["rows"]
        images = "/api/v1/atlases/tiny/images"
        picture = f"/api/v1/atlases/tiny/patches/{rows[0]['image_id']}.jpg?unit=_blocks.5:3"
        assert remote.get(picture).content == client.get(picture).content
        remove(address, [rows[0]["image_id"]])
        wait_until(lambda: remote.get(f"{images}/{rows[0]['image_id']}.json").status_code == 404)
        assert remote.get(f"{UNIT}/patches").json()["rows"][0]["image_id"] == rows[1]["image_id"]
    assert {len(path.name) for path in tmp_path.iterdir()} == {64, len("bytes")}


def test_a_server_goes_on_with_what_it_has_when_the_store_is_gone(
    tiny_atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    store.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*store.get_host_and_port()))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket = boto3.resource("s3").Bucket("leaving")
    bucket.create()
    settings = Settings(atlases=(uploaded(tiny_atlas, bucket, "tiny"),), cache=tmp_path)
    with TestClient(create_app(settings), ORIGIN, raise_server_exceptions=False) as client:
        answer = client.get(f"{UNIT}/patches").json()
        store.stop()
        time.sleep(1.1)
        assert client.get(f"{UNIT}/patches").json() == answer
        problem = client.get("/api/v1/atlases/tiny/layers/_blocks.0/units/3/patches")
        assert problem.status_code == 503
        assert problem.json()["title"] == "Object store unavailable"
        assert "127.0.0.1" not in problem.text
