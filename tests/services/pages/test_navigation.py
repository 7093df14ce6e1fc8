"""The bar at the top leads everywhere from every page, and tells nobody of an atlas who may not read."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.services.conftest import bearer

PAGES = (
    *("/", "/jobs", "/compare", "/docs", "/a/tiny", "/a/tiny/layers/_blocks.5"),
    *("/a/tiny/annotations", "/a/tiny/no", "/no"),
)
HTML = {"Accept": "text/html"}


def bar(client: TestClient, page: str, **headers: str) -> list[str]:
    text = client.get(page, headers={**HTML, **headers}).text
    found = re.search(r'<nav class="site".*?</nav>', text, re.DOTALL)
    assert found is not None, page
    return re.findall(r">([^<]+)</a>", found[0])


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_the_whole_bar_and_the_search(client: TestClient, page: str) -> None:
    assert bar(client, page) == ["Atlases", "Live", "Your picture", "Notes", "Compare", "Jobs"]
    assert 'role="search"' in client.get(page, headers=HTML).text


def test_a_reader_is_offered_what_a_reader_may(served: Callable[..., TestClient]) -> None:
    client = served(anonymous_read=True)
    for page in ("/", "/a/tiny", "/no"):
        assert bar(client, page) == ["Atlases", "Notes", "Compare"]


@pytest.mark.parametrize("page", ["/", "/a/tiny", "/no", "/a/no"])
def test_who_may_not_read_is_told_of_no_atlas(served: Callable[..., TestClient], key_file: Path, page: str) -> None:
    client: Any = served(key_file=key_file)
    assert "/a/tiny/" not in client.get(page, headers=HTML).text
    assert "/a/tiny/" not in client.get(page, headers={**HTML, "Authorization": "Bearer wrong"}).text
    assert bar(client, page, **bearer("reader")) == ["Atlases", "Notes", "Compare"]
