"""A server shows no picture outside the folders that it is allowed, answers all else, and says what would do."""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.services.conftest import UNIT
from tests.tables import move_root
from unitscope_schemas.errors import UsageError

API = "/api/v1/atlases/tiny"
Started = Callable[..., TestClient]


@pytest.fixture
def hidden(served: Started) -> TestClient:
    """A server whose owner named no folder."""
    return served(corpora=())


def first(client: TestClient) -> str:
    image: str = client.get(f"{UNIT}/patches?k=1").json()["rows"][0]["image_id"]
    return image


def test_without_a_folder_everything_but_pictures_is_answered(hidden: TestClient, client: TestClient) -> None:
    image = first(hidden)
    for address in (
        f"{UNIT}/patches",
        f"{API}/images/{image}.json",
        f"{API}/images/{image}/neighbors",
        f"{API}/layers",
    ):
        assert hidden.get(address).json() == client.get(address).json()
    for address in (
        f"{API}/images/{image}.jpg",
        f"{API}/patches/{image}.png?unit=_blocks.5:3",
        f"{API}/patches/{image}.png?unit=_blocks.5:3&overlay=map",
        f"{API}/images/{image}/map?layer=_blocks.5&unit=3",
    ):
        problem = hidden.get(address)
        assert (problem.status_code, client.get(address).status_code) == (404, 200), address
        assert "adds --corpus ROOT" in problem.json()["detail"]
        assert "/tmp" not in problem.text
    blank = hidden.get(f"{API}/images/{image}.jpg", headers={"Sec-Fetch-Dest": "image"})
    assert (blank.status_code, blank.headers["cache-control"]) == (404, "no-store")
    assert Image.open(io.BytesIO(blank.content)).size == (224, 224)


def test_every_page_of_the_atlas_says_why_there_are_no_pictures(hidden: TestClient, client: TestClient) -> None:
    for page in (
        "/a/tiny",
        "/a/tiny/layers/_blocks.5",
        "/a/tiny/layers/_blocks.5/units/3",
        f"/a/tiny/images/{first(hidden)}",
    ):
        shown = hidden.get(page)
        assert (shown.status_code, "--corpus ROOT" in shown.text) == (200, True), page
        assert "--corpus ROOT" not in client.get(page).text
    assert (hidden.get(API).json()["hidden_corpora"], client.get(API).json()["hidden_corpora"]) == (1, 0)


def test_what_was_answered_without_pictures_is_not_kept_when_they_are_allowed(
    hidden: TestClient, client: TestClient
) -> None:
    version = client.get(API).json()["version"]
    for address in (f"{API}/layers/_blocks.5/sprites/patch.png?sheet=0&v={version}", "/a/tiny/layers/_blocks.5", "/"):
        before, after = hidden.get(address), client.get(address)
        assert (before.status_code, after.status_code) == (200, 200), address
        assert "immutable" not in before.headers["cache-control"]
        assert before.headers["etag"] != after.headers["etag"]
        assert client.get(address, headers={"If-None-Match": before.headers["etag"]}).status_code == 200


def test_a_job_projects_no_picture_that_may_not_be_shown(tiny_atlas: Path, served: Started, tmp_path: Path) -> None:
    own = served(atlases=(shutil.copytree(tiny_atlas, tmp_path / "tiny"),), corpora=())
    query = {"kind": "project", "atlas": "tiny", "units": ["_blocks.5:3"], "k": 1, "method": "guided"}
    job = own.post("/api/v1/jobs", json=query).headers["location"]
    states: list[dict[str, Any]] = []
    while not states or states[-1]["state"] in ("waiting", "running"):
        states.append(own.get(job).json())
    assert states[-1]["state"] == "failed"
    assert "adds --corpus ROOT" in str(states[-1])


@pytest.mark.parametrize("named", ["corpus", "parent", "link", "one"])
def test_a_folder_that_holds_the_recorded_one_shows_its_pictures(
    named: str, served: Started, tiny_corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tiny_corpus)
    roots = {
        "corpus": str(tiny_corpus),
        "parent": str(tiny_corpus.parent),
        "link": str(tmp_path / "link"),
        "one": f"tiny={tiny_corpus}",
    }
    client = served(corpora=(roots[named],))
    assert client.get(f"{API}/images/{first(client)}.jpg").status_code == 200


def test_a_corpus_below_the_atlas_is_shown_as_it_is(
    served: Started, tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    atlas = shutil.copytree(tiny_atlas, tmp_path / "tiny")
    shutil.copytree(tiny_corpus, atlas / "corpus")
    move_root(atlas, atlas / "corpus")
    client = served(atlases=(atlas,), corpora=())
    assert client.get(f"{API}/images/{first(client)}.jpg").status_code == 200


def test_a_folder_for_another_atlas_allows_nothing_here(served: Started, tiny_atlas: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_atlas, tmp_path / "other")
    client = served(atlases=(tiny_atlas, other), corpora=(f"other={tmp_path}",))
    assert client.get(f"{API}/images/{first(client)}.jpg").status_code == 404


def test_a_folder_that_is_none_stops_the_start(served: Started, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        served(corpora=(str(tmp_path / "nowhere"),))


def test_the_command_says_at_its_start_what_to_add(tiny_atlas: Path, tiny_corpus: Path) -> None:
    said = told(tiny_atlas)
    assert re.search(rf"atlas tiny: its pictures are not shown, .*add --corpus {tiny_corpus}$", said[-1])
    assert len(said) == 2
    assert len(told(tiny_atlas, "--corpus", str(tiny_corpus))) == 1
    assert "are looked for below" in told(tiny_atlas, "--corpus", str(tiny_atlas.parent / "tiny"))[-1]


def told(atlas: Path, *options: str) -> list[str]:
    """The lines that a server writes until it has started."""
    command = [sys.executable, "-c", CODE, "serve", str(atlas), "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith(("serving on", "atlas "))]


CODE = """
import sys, uvicorn
uvicorn.Server.run = lambda *words, **options: None  # it has started
from unitscope.cli import main
main()
"""
