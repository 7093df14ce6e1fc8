"""A layer's kinds of tiles, a label and the filters, tried by hand in a browser."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.services.web.browser.test_access import grave_faults

Opened = Callable[..., Page]
Ask = Callable[[str], Any]
LAYER = "/a/tiny/layers/_blocks.0"


def test_kinds_and_sorts_change_in_place_and_stay_in_the_address(opened: Opened) -> None:
    page = opened(LAYER)
    page.get_by_role("link", name="highest peak").click()
    page.wait_for_url("**sort=-maximum")
    page.get_by_role("link", name="optimised", exact=True).click()
    page.wait_for_url("**kind=optimised**")
    expect(page.get_by_role("link", name="highest peak")).to_have_attribute("aria-current", "true")
    page.get_by_role("link", name="filter", exact=True).click()
    page.get_by_role("link", name="See the filters").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Filters of _conv_stem")
    expect(page.locator("tile-grid li")).to_have_count(32)
    page.go_back()
    page.go_back()
    expect(page.get_by_role("link", name="optimised", exact=True)).to_have_attribute("aria-current", "true")


@pytest.mark.parametrize("width", [320, 1_440])
def test_no_caption_is_cut_however_long_its_numbers_are(opened: Opened, width: int) -> None:
    """A tile is narrower than a long number of a unit beside its peak, and what sticks out of one is not drawn."""
    page = opened("/a/tiny/layers/_blocks.5")
    page.set_viewport_size({"width": width, "height": 800})
    outside = page.evaluate("""() => [...document.querySelectorAll(".tiles li")].slice(0, 12).filter((tile) => {
        const [unit, peak] = tile.querySelectorAll(".caption > span");
        unit.lastChild.textContent = "48210";
        peak.textContent = "−9.30e−10";
        const room = tile.getBoundingClientRect();
        return [unit, peak].some((text) => {
            const own = text.getBoundingClientRect();
            return own.left < room.left - 0.5 || own.right > room.right + 0.5 || own.bottom > room.bottom + 0.5;
        });
    }).length""")
    assert outside == 0


def test_with_the_keyboard_a_label_leads_to_a_unit_that_likes_it(opened: Opened, ask: Ask) -> None:
    page = opened("/a/tiny")
    page.keyboard.press("/")
    page.keyboard.type("stripes")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Units that like the label stripes")).to_be_visible()
    first = ask("selective?label=stripes&k=1")["rows"][0]
    link = page.get_by_role("link", name=re.compile(rf"^{first['layer']}:{first['channel']}$"))
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/layers/{first['layer']}/units/{first['channel']}")


def test_a_masked_patch_is_chosen_on_the_units_page(opened: Opened) -> None:
    page = opened("/a/tiny/layers/_blocks.5/units/3")
    page.get_by_role("link", name="masked").click()
    page.wait_for_url("**look=masked")
    shown = page.locator(".patches img").first
    expect(shown).to_have_attribute("src", re.compile("overlay=mask"))
    expect(shown).to_have_js_property("complete", True)
    assert shown.evaluate("(one) => one.naturalWidth") > 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["filters", "find?q=blobs"])
def test_axe_finds_nothing_grave(opened: Opened, path: str, theme: str) -> None:
    page = opened(f"/a/tiny/{path}", color_scheme=theme)
    assert grave_faults(page) == []
    page.set_viewport_size({"width": 320, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


@pytest.mark.long
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["_blocks.0?kind=filter", "_blocks.15?kind=projection", "_blocks.5/units/3/eigen"])
def test_axe_finds_nothing_grave_on_further_pages(opened: Opened, path: str, theme: str) -> None:
    assert grave_faults(opened(f"/a/tiny/layers/{path}", color_scheme=theme)) == []
