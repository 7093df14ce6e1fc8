"""Eigen-patches over HTTP and on their page: the numbers and pixels of the function, computed once."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.services.conftest import UNIT
from unitscope_schemas.questions import EigenQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.figures.eigen import EigenPatches, eigen_patches
from unitscope_services.figures.memo import Memo
from unitscope_services.queries.session import Session
from unitscope_services.web.assets import percent

QUERY = "k=40&components=4&size=24"


@pytest.fixture(scope="module")
def found(session: Session) -> EigenPatches:
    return eigen_patches(session, UnitId("_blocks.5", 3), EigenQuestion(k=40, components=4, size=24))


def test_the_answer_holds_the_shares_and_how_many_patches_they_rest_on(client: TestClient, found: EigenPatches) -> None:
    answer = client.get(f"{UNIT}/eigen?{QUERY}").json()
    assert (answer["patches"], answer["left_out"]) == (found.used, found.left_out)
    assert (answer["height"], answer["width"]) == (24, 24)
    assert [row["component"] for row in answer["rows"]] == [0, 1, 2, 3, 4]
    assert [row["share"] for row in answer["rows"][1:]] == pytest.approx(found.shares.tolist())
    assert client.get(f"{UNIT}/eigen.csv?{QUERY}").text.count("\n") == 6


def test_its_pictures_are_the_mean_and_each_component_in_its_own_scale(client: TestClient, found: EigenPatches) -> None:
    rows = client.get(f"{UNIT}/eigen?{QUERY}").json()["rows"]
    pictures = [np.asarray(Image.open(io.BytesIO(client.get(row["url"]).content))) for row in rows]
    assert np.array_equal(pictures[0], np.rint(found.mean).astype(np.uint8))
    for row, shown, component in zip(rows[1:], pictures[1:], found.components, strict=True):
        assert row["scale"] == pytest.approx(np.abs(component).max())
        levels = 128 + 127 * component / np.abs(component).max()
        assert np.abs(shown - levels).max() <= 0.51
    beyond = client.get(f"{UNIT}/eigen/5.png?{QUERY}")
    assert beyond.status_code == 404
    assert "components 1 to 4, not 5" in beyond.json()["detail"]


def test_the_part_of_the_unit_page_shows_them_and_the_page_leads_there(client: TestClient) -> None:
    page = "/a/tiny/layers/_blocks.5/units/3"
    assert f'href="{page}/eigen"' in client.get(page).text
    part = client.get(f"{page}/eigen").text
    rows = client.get(f"{UNIT}/eigen?components=8").json()["rows"]
    for row in rows[1:]:
        assert percent(row["share"]) in part
    assert part.count('<img class="crisp"') == len(rows)
    assert "unitscope eigen tiny _blocks.5:3" in part


def test_more_than_memory_is_meant_for_is_refused_before_a_picture_is_read(client: TestClient) -> None:
    answer = client.get(f"{UNIT}/eigen?size=112&k=1000")
    assert answer.status_code == 400
    assert "at most 425 patches of this size" in answer.json()["detail"]


def test_a_unit_whose_patches_reach_beyond_their_pictures_is_told_why(client: TestClient) -> None:
    answer = client.get(f"{UNIT}/eigen?size=225")
    assert answer.status_code == 400
    assert "choose a smaller" in answer.json()["detail"]
    assert client.get("/a/tiny/layers/_blocks.5/units/80/eigen").status_code == 404


def test_what_is_asked_for_by_many_at_once_is_made_once_and_failures_are_not_kept() -> None:
    latest, made, may_end = Memo[int](2), list[int](), threading.Event()

    def make() -> int:
        made.append(1)
        assert may_end.wait(10)
        return len(made)

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(latest.get, "a", make) for _ in range(4)]
        may_end.set()
    assert [answer.result() for answer in answers] == [1, 1, 1, 1]
    with pytest.raises(ZeroDivisionError):
        latest.get("b", lambda: 1 // 0)
    assert latest.get("b", lambda: 5) == 5
    assert latest.get("c", lambda: 6) == 6
    assert latest.get("a", make) == 2  # of three the first was let go
