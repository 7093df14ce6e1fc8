"""What people write, over the API and on the pages: who may, what is refused, and how it is shown."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.services.conftest import bearer
from unitscope_services.annotations.annotation_file import SUFFIX

API = "/api/v1/atlases/tiny"
UNIT, PAGE = f"{API}/layers/_blocks.5/units/3", "/a/tiny/layers/_blocks.5/units/3"
START = Callable[..., TestClient]


@pytest.fixture
def writable(served: START, tmp_path: Path) -> TestClient:
    """A server whose annotations lie in a folder of their own."""
    return served(annotations=tmp_path)


def image_of(client: TestClient) -> str:
    found: str = client.get(f"{API}/images?k=1").json()["rows"][0]["image_id"]
    return found


def test_an_annotation_is_written_changed_and_taken_away(writable: TestClient) -> None:
    answer = writable.put(f"{UNIT}/annotation", json={"name": "stripes", "tags": ["edge", "edge"]})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "private, no-store"
    (row,) = answer.json()["rows"]
    assert (row["subject"], row["name"], row["tags"], row["author"]) == ("_blocks.5:3", "stripes", ["edge"], "")
    writable.put(f"{API}/images/{image_of(writable)}/annotation", json={"note": "odd"})
    listed = writable.get(f"{API}/annotations").json()
    assert [one["note"] for one in listed["rows"]] == ["odd", ""]
    assert writable.get(f"{API}/annotations?tag=edge").json()["count"] == 1
    assert writable.get(f"{API}/annotations?contains=STRIP").json()["count"] == 1
    assert writable.get(f"{API}/annotations?subject=_blocks.5:3").json()["count"] == 1
    assert writable.get(f"{API}/annotations.csv").text.startswith('"subject","name","note","tags"')
    assert writable.put(f"{UNIT}/annotation", json={"remove": True}).json() == {"rows": [], "count": 0}
    assert writable.get(f"{API}/annotations").json()["count"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("layers/_blocks.5/units/9999/annotation", {"name": "x"}, 404, "does not exist"),
        ("layers/nowhere/units/3/annotation", {"name": "x"}, 404, "neither a unit"),
        ("images/ffffffffffff/annotation", {"name": "x"}, 404, "neither a unit"),
        ("layers/_blocks.5/units/3/annotation", {}, 400, "nothing is written"),
        ("layers/_blocks.5/units/3/annotation", {"nmae": "x"}, 400, "did you mean name"),
        ("layers/_blocks.5/units/3/annotation", {"name": "x" * 201}, 400, "200"),
        ("layers/_blocks.5/units/3/annotation", {"tags": ["x"] * 51}, 400, "50"),
        ("layers/_blocks.5/units/3/annotation", {"note": "x" * 10_001}, 400, "10000"),
        ("layers/_blocks.5/units/3/annotation", {"name": "x", "revision": 7}, 412, "changed meanwhile"),
    ],
)
def test_what_cannot_be_written_says_why(
    writable: TestClient, path: str, body: dict[str, Any], status: int, said: str
) -> None:
    answer = writable.put(f"{API}/{path}", json=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]
    assert writable.get(f"{API}/annotations").json()["count"] == 0


def test_a_collection_is_made_arranged_and_deleted(writable: TestClient) -> None:
    curves, image = f"{API}/collections/all curves", image_of(writable)
    made = writable.post(curves, json={"subjects": ["_blocks.5:3", image[:12]], "note": "both", "about": "mine"})
    assert [row["subject"] for row in made.json()["rows"]] == ["_blocks.5:3", image]
    assert writable.get(f"{curves}.csv").text.count("both") == 2
    writable.post(curves, json={"subjects": [image, "_blocks.5:3"], "arrange": True})
    assert [row["subject"] for row in writable.get(curves).json()["rows"]] == [image, "_blocks.5:3"]
    assert [row["item_count"] for row in writable.get(f"{API}/collections").json()["rows"]] == [2]
    refused = writable.post(curves, json={"subjects": ["_blocks.5:3", "nothing"]})
    assert (refused.status_code, "nothing" in refused.json()["detail"]) == (404, True)
    assert writable.post(curves, json={"remove": True}).status_code == 204
    assert writable.get(curves).status_code == 404
    for name in ("a.csv.b", "%2e%2e", "x" * 201):
        assert writable.post(f"{API}/collections/{name}", json={"subjects": []}).status_code in (400, 404, 405), name


def test_only_a_key_that_may_annotate_writes_and_signs(served: START, tmp_path: Path, key_file: Path) -> None:
    digest = hashlib.sha256(b"writer-key").hexdigest()
    key_file.write_text(f"{key_file.read_text()}\nwriter annotate {digest}\n")
    client = served(annotations=tmp_path, key_file=key_file)
    for name, status in (("reader", 403), ("worker", 403), ("writer", 200), ("owner", 200)):
        answer = client.put(f"{UNIT}/annotation", json={"name": name}, headers=bearer(name))
        assert answer.status_code == status, name
    rows = client.get(f"{API}/annotations", headers=bearer("reader")).json()["rows"]
    assert [(row["name"], row["author"]) for row in rows] == [("owner", "owner")]
    assert client.put(f"{UNIT}/annotation", json={"name": "x"}).status_code == 401
    assert "Keep</button>" not in client.get(PAGE, headers=bearer("reader")).text
    assert "Keep</button>" in client.get(PAGE, headers=bearer("writer")).text
    public = served(annotations=tmp_path, anonymous_read=True)
    assert public.get(f"{API}/annotations").json()["count"] == 1
    assert public.put(f"{UNIT}/annotation", json={"name": "x"}).status_code == 401


def test_pages_write_show_and_find_what_was_written(writable: TestClient) -> None:
    assert "Name it, write a note, collect it" in writable.get(PAGE).text
    form = {"name": "<b>bold</b>", "note": "first\r\nsecond", "tags": "edge, line ,", "revision": "0"}
    back = writable.post(f"{PAGE}/annotation", data=form, follow_redirects=False)
    assert (back.status_code, back.headers["location"]) == (303, PAGE)
    page = writable.get(PAGE).text
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    assert '<span class="tag">line</span>' in page
    assert writable.post(f"{PAGE}/annotation", data=form).status_code == 412
    before = writable.get("/a/tiny/find?q=bold")
    assert "_blocks.5:3" in before.text
    writable.post(f"{PAGE}/annotation", data={**form, "name": "plain", "revision": "1"})
    assert writable.get("/a/tiny/find?q=bold").headers["etag"] != before.headers["etag"]
    assert "Written about it" not in writable.get("/a/tiny/find?q=bold").text
    image = image_of(writable)
    assert writable.post(f"/a/tiny/images/{image}/annotation", data={"name": "odd one"}).status_code == 200
    assert "odd one" in writable.get(f"/a/tiny/images/{image}").text
    listed = writable.get("/a/tiny/annotations").text
    assert "odd one" in listed and "plain" in listed
    assert "odd one" not in writable.get("/a/tiny/annotations?tag=edge").text


def test_collections_have_a_page_whose_items_move(writable: TestClient) -> None:
    for channel in (1, 2, 3):
        writable.post("/a/tiny/collect", data={"collection": "mine", "subject": f"_blocks.5:{channel}"})
    page = writable.get("/a/tiny/collections/mine").text
    assert page.index("_blocks.5:1") < page.index("_blocks.5:2") < page.index("_blocks.5:3")
    assert 'alt="Patch 1 of unit _blocks.5:2' in page
    up = {"subject": "_blocks.5:3", "revision": "3"}
    assert writable.post("/a/tiny/collections/mine/up", data=up).status_code == 200
    assert writable.post("/a/tiny/collections/mine/up", data=up).status_code == 412
    page = writable.get("/a/tiny/collections/mine").text
    assert page.index("_blocks.5:1") < page.index("_blocks.5:3") < page.index("_blocks.5:2")
    writable.post("/a/tiny/collect", data={"collection": "mine", "subject": "_blocks.5:1", "remove": "1"})
    assert "_blocks.5:1<" not in writable.get("/a/tiny/collections/mine").text
    assert ">mine</a>" in writable.get(PAGE).text


def test_a_page_of_another_site_cannot_write(writable: TestClient) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert writable.put(f"{UNIT}/annotation", json={"name": "x"}, headers=headers).status_code == 403
        assert writable.post("/a/tiny/collect", data={"collection": "x"}, headers=headers).status_code == 403


def test_a_damaged_file_is_told_of_and_the_pages_still_answer(writable: TestClient, tmp_path: Path) -> None:
    writable.put(f"{UNIT}/annotation", json={"name": "mine"})
    (tmp_path / f"tiny{SUFFIX}").write_bytes(b"nothing that anybody could read" * 300)
    for page in (PAGE, "/a/tiny/find?q=stripes"):
        answer = writable.get(page)
        assert answer.status_code == 200
        assert f"tiny{SUFFIX}" in answer.text
        assert str(tmp_path) not in answer.text
    answer = writable.get(f"{API}/annotations")
    assert (answer.status_code, str(tmp_path) in answer.text) == (500, False)


def test_an_atlas_without_a_place_for_them_is_served_and_says_what_would_do(served: START) -> None:
    client = served(annotations=Path("/proc/none"))
    assert client.get(PAGE).status_code == 200
    assert "Keep</button>" not in client.get(PAGE).text
    assert client.get(f"{API}/annotations").json() == {"rows": [], "count": 0}
    answer = client.put(f"{UNIT}/annotation", json={"name": "x"})
    assert (answer.status_code, "--annotations" in answer.json()["detail"]) == (409, True)
