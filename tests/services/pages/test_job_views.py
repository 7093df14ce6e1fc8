"""Pages of jobs, and the form on a unit's page that asks for one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.services.server.test_jobs import ended
from unitscope_schemas import layout

UNIT = "/a/tiny/layers/_blocks.0/units/3"


@pytest.fixture(autouse=True)
def unstored(tiny_atlas: Path) -> Iterator[None]:
    yield
    shutil.rmtree(tiny_atlas / layout.VISUALS, ignore_errors=True)


def test_the_form_of_a_unit_leads_to_a_job_and_its_picture_stands_on_both_pages(client: TestClient) -> None:
    assert f'action="{UNIT}/optimised"' in client.get(UNIT).text
    answer = client.post(f"{UNIT}/optimised", data={"seed": 4}, follow_redirects=False)
    assert answer.status_code == 303
    page = answer.headers["location"]
    (picture,) = ended(client, f"/api/v1{page}")["results"]
    shown = client.get(page).text
    assert f'src="{picture}"' in shown
    assert f'href="{UNIT}"' in shown
    assert f'src="{picture}"' in client.get(UNIT).text
    assert f'href="{page}"' in client.get("/jobs").text


def test_a_reader_who_may_not_compute_is_offered_no_form(served: object, key_file: Path) -> None:
    closed = served(key_file=key_file, anonymous_read=True)  # type: ignore[operator]
    page = closed.get(UNIT)
    assert page.status_code == 200
    assert "/optimised" not in page.text
    assert closed.post(f"{UNIT}/optimised").status_code == 401


def test_a_page_of_another_site_cannot_ask_for_work(client: TestClient) -> None:
    answer = client.post(f"{UNIT}/optimised", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get(UNIT, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
