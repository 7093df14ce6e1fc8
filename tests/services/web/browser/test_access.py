"""What helps readers with other eyes, hands and screens."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

PAGES = (
    "/a/tiny/layers/_blocks.5/units/3?quantile=0.1..0.9",
    "/a/tiny/images/IMAGE?layer=_blocks.5&cell=3,4&unit=_blocks.5:3&box=10,10,60,60",
    "/a/tiny/layers/_blocks.5",
    "/a/tiny/layers/_blocks.5/units/3/trace?image=IMAGE",
    "/a/tiny/live?unit=_blocks.5:3&back=gradient",
)
MORE = ("/", "/a/tiny", "/a/tiny/skipped", "/docs", "/a/tiny/layers/_blocks.5/units/3?embed=1")


@pytest.fixture
def paths(ask: Callable[[str], Any]) -> tuple[str, ...]:
    """The addresses with an image of the corpus in them."""
    image = ask("layers/_blocks.5/units/3/patches?k=1")["rows"][0]["image_id"]
    return tuple(path.replace("IMAGE", image) for path in PAGES)


def grave_faults(page: Page) -> list[str]:
    """What axe finds serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {[node['html'][:120] for node in fault['nodes'][:3]]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("number", range(len(PAGES)))
def test_axe_finds_nothing_grave(opened: Callable[..., Page], paths: tuple[str, ...], theme: str, number: int) -> None:
    assert grave_faults(opened(paths[number], color_scheme=theme)) == []


@pytest.mark.long
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("number", range(len(MORE)))
def test_axe_finds_nothing_grave_on_the_other_pages(opened: Callable[..., Page], theme: str, number: int) -> None:
    assert grave_faults(opened(MORE[number], color_scheme=theme)) == []


def test_pages_fit_a_narrow_screen(opened: Callable[..., Page], paths: tuple[str, ...]) -> None:
    page = opened(paths[0])
    page.set_viewport_size({"width": 320, "height": 700})
    for path in paths:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
