"""Where things lie on the server is said to nobody: an atlas of a list of whole paths, asked by every address."""

import csv
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from tests.pictures import write_corpus
from tests.services.conftest import ORIGIN
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_schemas.addresses import last_name, without_paths
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.exports.bundle import write_bundle
from unitscope_services.queries.unit_selection import every_unit
from unitscope_services.web.app import Settings, create_app

LAYER = "_blocks.0"
UNIT = f"/api/v1/atlases/listed/layers/{LAYER}/units/3"


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """An atlas of pictures in a folder with a blank in its name, of which one is broken, one missing, one twice."""
    folder = tmp_path_factory.mktemp("some where")
    corpus = write_corpus(folder / "hidden corpus", 12)
    paths = sorted(corpus.rglob("*.jpg"))
    (corpus / "again.jpg").write_bytes(paths[0].read_bytes())
    rows = [f"{path},={path.parent.name}" for path in paths] + [f"{corpus}/again.jpg,other", f"{corpus}/gone.jpg,"]
    (folder / "list.csv").write_text("\n".join(["path,label", *rows]))
    atlas = folder / "atlases" / "listed"
    index(
        IndexConfig(corpus=str(folder / "list.csv"), atlas=str(atlas), layers=(LAYER,), max_errors=10), lambda _: None
    )
    return atlas


@pytest.fixture(scope="module")
def asked(listed: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(atlases=(listed,))), ORIGIN, raise_server_exceptions=False) as client:
        yield client


def addresses(client: TestClient, image: str) -> list[str]:
    """Every address of the server that can be read, about the atlas, a unit and an image."""
    values = {"atlas": "listed", "layer": LAYER, "channel": "3", "image": image, "what": "patch", "name": "keys.js"}
    found = []
    for route in client.app.state.routes:  # type: ignore[attr-defined]
        if "GET" in route.methods:
            filled = re.sub(r"{(\w+)}", lambda part: quote(values.get(part[1], "png"), safe=""), route.path)
            found += [filled, f"{filled}?layer={LAYER}&unit=3", f"{filled}?unit={LAYER}:3"]
    return [*found, "/a/listed/find?q=gone", "/a/listed/find?q=.jpg", "/a/listed/find?q=hidden"]


def test_no_answer_holds_a_path_of_the_server(asked: TestClient, listed: Path) -> None:
    places = (listed.parents[2].name, "hidden corpus")
    image = asked.get("/api/v1/atlases/listed/images?k=1&duplicates=true").json()["rows"][0]
    assert image["other_paths"], "the image that is there twice"
    texts = {address: asked.get(address).text for address in addresses(asked, image["image_id"])}
    told = [address for address, text in texts.items() if any(place in text for place in places)]
    assert told == []


def test_pictures_that_are_gone_are_named_without_their_folder(asked: TestClient, listed: Path) -> None:
    corpus = listed.parent.parent / "hidden corpus"
    row = asked.get(f"{UNIT}/patches?k=1").json()["rows"][0]
    corpus.rename(corpus.with_name("moved"))
    try:
        answer = asked.get(f"/api/v1/atlases/listed/images/{row['image_id']}.jpg")
    finally:
        corpus.with_name("moved").rename(corpus)
    assert answer.status_code == 404
    assert "hidden corpus" not in answer.text and "some where" not in answer.text
    assert row["path"] in answer.json()["detail"]


def test_an_image_is_found_by_the_name_that_is_shown_and_not_by_its_folder(asked: TestClient, listed: Path) -> None:
    images = "/api/v1/atlases/listed/images"
    row = asked.get(f"{images}?k=1").json()["rows"][0]
    assert "/" not in row["path"]
    assert asked.get(images, params={"path": "again.jpg"}).json()["rows"][0]["other_paths"]
    whole = f"{listed.parent.parent}/hidden corpus/again.jpg"
    assert asked.get(images, params={"path": whole}).status_code == 404
    assert asked.get(images, params={"where": "path~hidden"}).json().get("rows", []) == []


def test_whoever_opens_the_atlas_here_sees_whole_paths_and_a_bundle_for_others_has_none(
    listed: Path, tmp_path: Path
) -> None:
    opened = Atlas(listed)
    assert all(row.path.startswith("/") for row in opened.catalogue.rows([0, 1]))
    write_bundle(Atlas(listed, public=True), every_unit(opened)[:1], tmp_path / "bundle", 3)
    pages = list((tmp_path / "bundle").rglob("*.html"))
    assert pages and not [page for page in pages if "hidden corpus" in page.read_text()]


def test_a_csv_for_spreadsheets_holds_no_formula_whatever_way_it_is_asked_for(
    asked: TestClient, listed: Path, tmp_path: Path
) -> None:
    labels = {"'=blobs", "'=stripes", "other"}
    assert safe_labels(asked.get(f"{UNIT}/patches.csv?safe=1").text) <= labels
    assert safe_labels(asked.get(f"{UNIT}/patches.csv").text) - labels
    refused = asked.get(f"{UNIT}/patches.csv?safe=yes")
    assert (refused.status_code, "0 nor 1" in refused.json()["detail"]) == (400, True)
    assert asked.get(f"{UNIT}/histogram?safe=1").status_code == 400, "no rows, so nothing that could be a CSV"
    command = [sys.executable, "-m", "unitscope"]
    top = subprocess.run([*command, "top", str(listed), f"{LAYER}:3", "--format", "csv-safe"], capture_output=True)
    assert safe_labels(top.stdout.decode()) <= labels
    where = ["--units", f"{LAYER}:3", "--out", str(tmp_path / "out")]
    subprocess.run([*command, "export", str(listed), "--format", "csv-safe", *where], check=True)
    assert safe_labels((tmp_path / "out" / "exemplars.csv").read_text()) <= labels


def safe_labels(text: str) -> set[str]:
    """The labels of a CSV, of which there are some."""
    labels = {row["label"] for row in csv.DictReader(io.StringIO(text))}
    assert labels
    return labels


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a b/c/d.jpg", "d.jpg"),
        ("/d.jpg", "d.jpg"),
        ("C:\\x\\d.jpg", "d.jpg"),
        ("a/b/d.jpg", "a/b/d.jpg"),
        ("../b/d.jpg", "../b/d.jpg"),
        ("/x/\\xe9.jpg", "\\xe9.jpg"),
        ("\\xe9/d.jpg", "\\xe9/d.jpg"),
        ("s3://bucket/d.jpg", "s3://bucket/d.jpg"),
    ],
)
def test_only_a_path_from_the_root_of_a_disk_is_cut(path: str, shown: str) -> None:
    assert last_name(path) == shown


@pytest.mark.parametrize("text", ["no such file: '/home/anna smith/x.jpg'", "no such file: /home/anna/x.jpg"])
def test_a_message_names_a_file_and_not_its_folder(text: str) -> None:
    assert "anna" not in without_paths(text) and "x.jpg" in without_paths(text)
