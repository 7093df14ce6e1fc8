"""A reader with a key in a real browser: in, to all that a page does, and out."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.services.conftest import key_file  # noqa: F401
from tests.services.web.browser.test_access import grave_faults
from tests.services.web.browser.test_live import Server, begun
from tests.services.web.test_images import picture_bytes
from unitscope_services.web.app import Settings

FOLLOWED = """(address) => {
    const link = Object.assign(document.createElement("a"), {href: address});
    document.body.append(link);
    link.click();
}"""


@pytest.fixture
def closed(tiny_atlas: Any, tiny_corpus: Path, key_file: Path) -> Iterator[Server]:  # noqa: F811
    """A server with keys."""
    server = Server(Settings(atlases=(tiny_atlas,), corpora=(str(tiny_corpus),), key_file=key_file))
    yield server
    server.stop()


def signed_in(page: Page, closed: Server, path: str, key: str) -> None:
    page.goto(f"http://127.0.0.1:{closed.port}{path}")
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_a_reader_signs_in_uploads_looks_live_follows_a_job_and_signs_out(closed: Server, browser: Browser) -> None:
    page, faults = browser.new_page(), list[str]()
    try:
        signed_in(page, closed, "/a/tiny", "wrong")
        expect(page.get_by_role("alert")).to_contain_text("not known")
        signed_in(page, closed, "/a/tiny", "worker-key")
        expect(page).to_have_url(re.compile("/a/tiny$"))
        expect(page.locator(".who")).to_contain_text("Signed in as worker")
        page.on("response", lambda answer: answer.status in (200, 303, 101, 304, 401) or faults.append(answer.url))
        picture = {"name": "mine.png", "mimeType": "image/png", "buffer": picture_bytes()}
        page.locator("form.upload input[type=file]").set_input_files(picture)
        page.locator("form.upload button").click()
        expect(page).to_have_url(re.compile("/a/tiny/uploads/"))
        page.wait_for_load_state("networkidle")
        image = page.request.get(f"http://127.0.0.1:{closed.port}/api/v1/atlases/tiny/images?k=1").json()["rows"][0]
        page.goto(f"{closed.address}&image={image['image_id']}")
        begun(page)
        page.goto(f"http://localhost:{closed.port}/sign-in")
        page.evaluate(FOLLOWED, f"http://127.0.0.1:{closed.port}/a/tiny/layers/_blocks.5")
        expect(page.locator("h1")).to_contain_text("_blocks.5")
        assert faults == [], "but for the link of another site, whose cookie comes at the second time"
        page.goto(f"http://127.0.0.1:{closed.port}/jobs")
        expect(page.locator("h1")).to_have_text("Jobs")
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("h1")).to_have_text("Sign in")
        page.goto(f"http://127.0.0.1:{closed.port}/a/tiny")
        expect(page.locator("h1")).to_have_text("Sign in")
    finally:
        page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_form_can_be_read_and_fits_a_narrow_screen(closed: Server, browser: Browser, theme: Any) -> None:
    page = browser.new_page(color_scheme=theme, viewport={"width": 320, "height": 700})
    try:
        signed_in(page, closed, "/", "wrong")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        assert grave_faults(page) == []
    finally:
        page.close()
