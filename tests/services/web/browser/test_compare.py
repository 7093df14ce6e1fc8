"""People's ways through two atlases compared, and on from there: without scripts, by mouse alone, by keyboard alone."""

import re
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.kin import PLAIN, TWIN
from tests.pictures import recorded_corpora
from tests.services.web.browser.conftest import numbers
from tests.services.web.browser.test_access import grave_faults
from tests.services.web.browser.test_journeys import parameter, screen_place
from tests.unitscope.test_client import running
from unitscope_services.web.app import Settings
from unitscope_services.web.assets import figure, percent

Opened = Callable[..., Page]
UNIT = f"/a/planted/layers/conv/units/{PLAIN}"


@pytest.fixture(scope="module")
def origin(kin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over two atlases of one corpus of which nothing is compared."""
    import_module("sklearn.cluster")  # for facets, once in a process; a busy machine takes longer than a click may
    folder = tmp_path_factory.mktemp("compared")
    for name in ("planted", "permuted"):
        shutil.copytree(kin_folder / name, folder / name)
    yield from running(
        Settings(
            atlases=(folder / "permuted", folder / "planted"),
            corpora=recorded_corpora(folder / "planted"),
            trust_code=True,
        )
    )


@pytest.fixture
def api(browser: Browser, origin: str) -> Iterator[Callable[[str], Any]]:
    """Answers of the API, by the address behind the atlases'."""
    context = browser.new_context(base_url=origin)
    yield lambda path: context.request.get(f"/api/v1/atlases/{path}").json()
    context.close()


def identifier(page: Page) -> str:
    """Of the comparison on the page."""
    page.wait_for_url("**/comparisons/**")
    return page.url.rpartition("/")[2].partition("?")[0]


def shows(page: Page, rows: list[dict[str, Any]], other: str) -> None:
    """The first units and figures on the page are those of the API's rows."""
    for place, row in enumerate(rows[:3]):
        item = page.locator(".pairs > li").nth(place)
        expect(item.locator("a.mono").first).to_have_text(f"{row['layer']}:{row['channel']}")
        expect(item.locator("a.mono").nth(1)).to_have_attribute("href", f"/a/{other}/layers/conv/units/{row['match']}")
        expect(item).to_contain_text(figure(row["correlation"], 3))
        expect(item).to_contain_text(percent(row["overlap"]))


def test_without_scripts_two_layers_are_compared_and_a_units_parts_read(opened: Opened, api: Any) -> None:
    page = opened("/", java_script_enabled=False)
    page.get_by_role("link", name="planted").click()
    page.get_by_role("link", name="Compare it").click()
    page.get_by_label("Second").select_option("permuted")
    page.get_by_role("button", name="Choose").click()
    page.get_by_label("Layer of planted").select_option("conv")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("link", name="To the comparison").click()
    address = f"planted/comparisons/{identifier(page)}"
    shows(page, api(address)["rows"], "permuted")
    page.get_by_role("link", name="Next units").click()
    expect(page.locator(".pairs a.mono").first).to_have_text("conv:24")
    page.goto(UNIT)
    for name, heading in (
        ("bands", "Its distribution in examples"),
        ("facets", "Facets"),
        ("similar", "Similar units"),
    ):
        page.locator(f'lazy-part[src$="/{name}"] a').click()
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        page.go_back()


def test_with_the_mouse_alone_from_two_atlases_to_band_box_and_overlay(opened: Opened, api: Any) -> None:
    page = opened("/")
    page.get_by_role("link", name="Compare").click()
    page.get_by_role("button", name="Choose").click()
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("link", name="To the comparison").click()
    address = f"permuted/comparisons/{identifier(page)}"
    page.get_by_role("link", name="conv", exact=True).click()
    page.get_by_role("link", name="differ most").first.click()
    page.wait_for_url("**sort=correlation**")
    shows(page, api(f"{address}?layer=conv&sort=correlation")["rows"], "planted")
    page.locator(".pairs > li").first.locator("a.mono").nth(1).click()
    page.wait_for_url("**/a/planted/**")
    chart, handle = page.locator("svg.chart").bounding_box(), page.locator("#band-2").bounding_box()
    assert chart is not None and handle is not None
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 40)
    page.mouse.down()
    page.mouse.move(chart["x"] + 0.6 * chart["width"], handle["y"] + 40, steps=4)
    page.mouse.up()
    page.wait_for_url("**quantile=**")
    unit, band = page.url.partition("/a/")[2].partition("?")[0], parameter(page, "quantile")
    first = api(f"{unit}/patches?k=1&quantile={band}")["rows"][0]
    expect(page.locator(".patches li").first).to_contain_text(figure(first["activation"]))
    page.locator(".patches a").first.click()
    page.locator("picture-view svg[role=application]").wait_for()
    page.mouse.move(*screen_place(page, 4, 4))
    page.mouse.down()
    page.mouse.move(*screen_place(page, 24, 20), steps=4)
    page.mouse.up()
    page.wait_for_url("**box=**")
    expect(page.locator("#nearest li").first).to_be_visible()
    page.get_by_role("link", name="Map of conv:").first.click()
    page.wait_for_url("**unit=conv:**")
    layer, channel = parameter(page, "unit").split(":")
    found = api(f"planted/images/{first['image_id']}/map?layer={layer}&unit={channel}")
    expect(page.get_by_text("Laid over it")).to_contain_text(figure(found["maximum"]))


def test_with_the_keyboard_alone_from_two_atlases_to_band_box_and_overlay(opened: Opened, api: Any) -> None:
    page = opened("/compare")
    page.locator("#a").focus()
    page.keyboard.type("pl")
    page.keyboard.press("Tab")
    page.keyboard.type("pe")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**a=planted&b=permuted**")
    page.get_by_role("button", name="Compare").focus()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="To the comparison").focus()
    page.keyboard.press("Enter")
    address = f"planted/comparisons/{identifier(page)}"
    shows(page, api(address)["rows"], "permuted")
    page.keyboard.press("j")
    expect(page.locator(".pairs a.mono").first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/units/0")
    page.locator("#band-1").focus()
    page.keyboard.press("PageUp")
    page.wait_for_url("**quantile=0.1..1")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.locator("#picture[tabindex]").focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**box=**")
    page.get_by_role("link", name="Map of conv:").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**unit=conv:**")
    expect(page.get_by_text("Laid over it")).to_be_visible()


def test_the_parts_of_a_unit_load_where_they_are_seen_and_change_in_place(opened: Opened, api: Any) -> None:
    page = opened(UNIT)
    similar = page.locator('lazy-part[src$="/similar"]')
    similar.scroll_into_view_if_needed()
    expect(similar.locator(".kin li")).to_have_count(9)
    similar.get_by_role("link", name="co-activation").click()
    expect(similar.get_by_text("Not computed yet")).to_be_visible()
    similar.get_by_role("button", name="Compute co-activation").click()
    expect(page).to_have_title(re.compile("similar, done"), timeout=30_000)
    page.get_by_role("link", name="To the unit").click()
    page.locator('lazy-part[src$="/similar"]').scroll_into_view_if_needed()
    rows = api(f"planted/layers/conv/units/{PLAIN}/similar")["rows"]
    assert (rows[0]["channel"], rows[0]["similarity"]) == (TWIN, 1.0)
    expect(page.locator(".kin li")).to_have_count(9)
    assert [numbers(text)[0] for text in page.locator(".kin strong").all_inner_texts()] == [
        round(row["similarity"], 3) for row in rows
    ]
    page.locator('lazy-part[src$="/similar"]').get_by_role("link", name="incoming weights").click()
    expect(page.get_by_text("cosine of incoming weights", exact=False)).to_be_visible()
    assert page.url.partition("#")[0].endswith(UNIT)


@pytest.mark.parametrize(("theme", "layer", "layer_b"), [("light", "conv", "head"), ("dark", "head", "conv")])
def test_axe_finds_nothing_grave_and_a_narrow_screen_holds_all(
    opened: Opened, theme: str, layer: str, layer_b: str
) -> None:
    page = opened(f"/compare?a=planted&b=planted&layer={layer}&layer_b={layer_b}", color_scheme=theme)
    assert grave_faults(page) == []
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("link", name="To the comparison").click()
    for path in (f"/a/planted/comparisons/{identifier(page)}", f"{UNIT}/similar"):
        page.goto(path)
        page.set_viewport_size({"width": 1200, "height": 900})
        assert grave_faults(page) == [], path
        page.set_viewport_size({"width": 320, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
