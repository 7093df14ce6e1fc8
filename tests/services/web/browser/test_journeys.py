"""People's ways through the pages in a real browser: without scripts, with the mouse alone, with the keyboard alone."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

from tests.services.web.browser.conftest import numbers
from unitscope_services.web.assets import figure, percent

Opened = Callable[..., Page]
Ask = Callable[[str], Any]
UNIT = "layers/_blocks.5/units/3"


def parameter(page: Page, name: str) -> str:
    """A parameter of the address that the browser shows."""
    return parse_qs(urlsplit(page.url).query).get(name, [""])[0]


def first_image(ask: Ask) -> dict[str, Any]:
    row: dict[str, Any] = ask(f"{UNIT}/patches?k=1")["rows"][0]
    return row


def screen_place(page: Page, row: float, col: float) -> tuple[float, float]:
    """Where a pixel of the original picture is on the screen."""
    place = page.evaluate(
        """([row, col]) => {
            const svg = document.querySelector("svg.whole");
            const {x, y} = new DOMPoint(col, row).matrixTransform(svg.getScreenCTM());
            return [x, y];
        }""",
        [row, col],
    )
    return place[0], place[1]


def test_without_scripts_a_reader_gets_from_home_to_an_image_and_back(opened: Opened, ask: Ask) -> None:
    page = opened("/", java_script_enabled=False)
    page.get_by_role("link", name="tiny").click()
    page.get_by_role("link", name="_blocks.5", exact=True).click()
    page.get_by_role("link", name=re.compile("^unit 3 ")).click()
    row = first_image(ask)
    expect(page.locator(".patches li").first).to_contain_text(figure(row["activation"]))
    page.locator("#band-from").fill("0.25")
    page.locator("#band-to").fill("0.75")
    page.get_by_role("button", name="Show").click()
    inside = ask(f"{UNIT}/patches?k=9&quantile=0.25..0.75")["rows"]
    expect(page.locator(".patches li").first).to_contain_text(figure(inside[0]["activation"]))
    page.get_by_role("link", name="Next 9").click()
    expect(page.locator(".patches li").first).not_to_contain_text(figure(inside[0]["activation"]))
    page.locator(".patches a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(".jpg")
    for side, value in zip(("top", "left", "bottom", "right"), (10, 20, 60, 70), strict=True):
        page.locator(f"#box-{side}").fill(str(value))
    page.get_by_role("button", name="Nearest patches").click()
    expect(page.get_by_role("heading", name="Nearest patches of the part 10, 20, 60, 70")).to_be_visible()
    page.go_back()
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("_blocks.5:3")


def test_with_the_mouse_alone_band_and_box_are_dragged_and_stay_in_the_address(opened: Opened, ask: Ask) -> None:
    page = opened(f"/a/tiny/{UNIT}")
    before = page.url
    chart, handle = page.locator("svg.chart").bounding_box(), page.locator("#band-2").bounding_box()
    assert chart is not None and handle is not None
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 40)
    page.mouse.down()
    page.mouse.move(chart["x"] + 0.6 * chart["width"], handle["y"] + 40, steps=4)
    page.mouse.up()
    page.wait_for_url("**quantile=**")
    band = parameter(page, "quantile")
    assert band.startswith("0..") and 0 < float(band[3:]) < 1
    first = ask(f"{UNIT}/patches?k=1&quantile={band}")["rows"][0]
    expect(page.locator(".patches li").first).to_contain_text(figure(first["activation"]))
    page.reload()
    expect(page.locator(".patches li").first).to_contain_text(percent(first["percentile"]))
    assert page.locator("#band-to").input_value() == band[3:]
    page.go_back()
    expect(page.locator("#band-to")).to_have_value("1")
    assert page.url == before
    page.locator(".patches a").first.click()
    page.locator("picture-view svg[role=application]").wait_for()
    page.mouse.move(*screen_place(page, 20, 20))
    page.mouse.down()
    page.mouse.move(*screen_place(page, 60, 70), steps=4)
    page.mouse.up()
    page.wait_for_url("**box=**")
    top, left, bottom, right = map(int, parameter(page, "box").split(","))
    assert abs(top - 20) <= 1 and abs(left - 20) <= 1 and abs(bottom - 60) <= 1 and abs(right - 70) <= 1
    image = urlsplit(page.url).path.rpartition("/")[2]
    nearest = ask(f"images/{image}/neighbors?k=10&box={parameter(page, 'box')}")
    shown = [row for row in nearest["rows"] if not row["image_id"].startswith(image)][:9]
    assert [numbers(text)[0] for text in page.locator("#nearest li strong").all_inner_texts()] == [
        round(row["score"], 3) for row in shown
    ]
    expect(page.locator("#nearest")).to_contain_text("exact search")


def test_the_count_of_images_follows_the_band_while_it_is_dragged(opened: Opened) -> None:
    """What is counted before the handle is let go is what the server counts of the same band afterwards."""
    page = opened(f"/a/tiny/{UNIT}")
    before, inside = page.url, page.locator(".band-count")
    chart, handle = page.locator("svg.chart").bounding_box(), page.locator("#band-2").bounding_box()
    assert chart is not None and handle is not None
    expect(inside).to_have_text("40 images")
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 40)
    page.mouse.down()
    page.mouse.move(chart["x"] + 0.4 * chart["width"], handle["y"] + 40, steps=4)
    expect(inside).not_to_have_text("40 images")
    dragged = inside.inner_text()
    assert page.url == before
    page.mouse.up()
    page.wait_for_url("**quantile=**")
    answer = page.context.request.get(page.url).text()
    assert f'<span class="band-count">{dragged}</span>' in answer


def test_with_the_keyboard_alone_band_cell_and_box_are_chosen(opened: Opened, ask: Ask) -> None:
    page = opened("/a/tiny")
    page.keyboard.press("/")
    page.keyboard.type("_blocks.5:3")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{UNIT}")
    page.locator("#band-1").focus()
    page.keyboard.press("PageUp")
    page.wait_for_url("**quantile=0.1..1")
    expect(page.locator("#band-1")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**quantile=0.11..1")
    expect(page.locator("#band-1")).to_have_attribute("aria-valuenow", "0.11")
    page.keyboard.press("j")
    expect(page.locator(".patches a").first).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/units/4")
    row = first_image(ask)
    page.goto(f"/a/tiny/images/{row['image_id']}?layer=_blocks.5&cell=3,4")
    page.locator("#picture[tabindex]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("heading", name="At row 4, column 5 of _blocks.5")).to_be_visible()
    units = ask(f"images/{row['image_id']}/cells?layer=_blocks.5&row=4&col=5&k=8")["rows"]
    expect(page.locator("#here tbody th").first).to_have_text(f"_blocks.5:{units[0]['channel']}")
    page.keyboard.press("Enter")
    page.wait_for_url("**cell=4,5**")
    expect(page.locator("#picture")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**box=**")
    expect(page.get_by_role("heading", name=re.compile("Nearest patches of the part"))).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_the_value_under_the_pointer_is_the_recorded_activation(opened: Opened, ask: Ask) -> None:
    row = first_image(ask)
    page = opened(f"/a/tiny/images/{row['image_id']}?unit=_blocks.5:3")
    picture = page.locator("#picture[tabindex]")
    top, left, height, width = (
        float(picture.get_attribute(f"data-{name}") or "nan") for name in ("top", "left", "height", "width")
    )
    middle = top + (row["row"] + 0.5) * height, left + (row["col"] + 0.5) * width
    page.mouse.move(*screen_place(page, *middle))
    expect(page.locator("output.pointed")).to_contain_text("_blocks.5:3 is")
    text = page.locator("output.pointed").inner_text()
    assert text.startswith(f"row {row['row']}, column {row['col']}:")
    assert abs(numbers(text)[-1] - row["activation"]) <= 1e-3 * abs(row["activation"])


def test_an_endless_list_goes_on_in_place(opened: Opened, ask: Ask) -> None:
    page = opened(f"/a/tiny/{UNIT}")
    page.wait_for_timeout(300)
    expect(page.locator("endless-list .patches li")).to_have_count(9)
    page.locator("endless-list a.next").click()
    seen = "() => { const link = document.querySelector('a.next'); link?.scrollIntoView(); return link !== null; }"
    while page.evaluate(seen):
        page.wait_for_timeout(150)
    rows = ask(f"{UNIT}/patches?k=40")["rows"]
    expect(page.locator("endless-list .patches li")).to_have_count(len(rows))
    expect(page.locator("a.next")).to_have_count(0)
    shown = [numbers(text)[0] for text in page.locator("endless-list .patches strong").all_inner_texts()]
    assert shown == [float(figure(row["activation"]).replace("−", "-")) for row in rows]


def test_arrow_keys_move_over_the_tiles_of_a_layer(opened: Opened) -> None:
    page = opened("/a/tiny/layers/_blocks.5")
    page.locator("main tile-grid a").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**/units/2")
