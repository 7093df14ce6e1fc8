import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.pictures import recorded_corpora
from unitscope_services.web.app import Settings, create_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def origin(tiny_atlas: Path) -> Iterator[str]:
    """A server over the tiny atlas, at a port of its own."""
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(Settings(atlases=(tiny_atlas,), corpora=recorded_corpora(tiny_atlas))),
            port=0,
            log_level="warning",
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
        assert thread.is_alive(), "the server did not start"
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; without one these tests are skipped."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the pages were not tried in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, origin: str) -> Iterator[Callable[..., Page]]:
    """Opens a page of the server; fails where one asks for anything elsewhere or complains on the console."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_page(path: str, **options: Any) -> Page:
        context = browser.new_context(base_url=origin, viewport={"width": 1200, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15000)
        page.on(
            "request", lambda asked: asked.url.startswith((f"{origin}/", f"blob:{origin}/")) or faults.append(asked.url)
        )
        page.on("console", lambda message: message.type != "error" or faults.append(message.text))
        page.on("response", lambda answer: answer.status < 400 or faults.append(f"{answer.status} {answer.url}"))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def ask(browser: Browser, origin: str) -> Iterator[Callable[[str], Any]]:
    """Answers of the API."""
    context = browser.new_context(base_url=origin)
    yield lambda path: context.request.get(f"/api/v1/atlases/tiny/{path}").json()
    context.close()


def numbers(text: str) -> list[float]:
    """All numbers in a text."""
    return [float(number.replace("−", "-")) for number in re.findall(r"[-−]?\d+(?:\.\d+)?", text)]
