"""The live page in a real browser: keys and buttons, the newest frame, cameras that are there, refused or missing."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, WebSocket, expect

from tests.pictures import recorded_corpora
from tests.services.web.browser.conftest import CHROMIUM
from tests.services.web.test_images import picture_bytes
from unitscope_services.web.app import Settings, create_app
from unitscope_services.web.assets import figure, percent

Opened = Callable[..., Page]
Ask = Callable[[str], Any]
LIVE = "/a/tiny/live?unit=_blocks.5:3"
FAKE_CAMERA = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
CARRIED = """(bytes) => {
    const carried = new DataTransfer();
    carried.items.add(new File([new Uint8Array(bytes)], "mine.png", {type: "image/png"}));
    return carried;
}"""
FILM = """async () => {
    const canvas = Object.assign(document.createElement("canvas"), {width: 320, height: 240});
    const context = canvas.getContext("2d");
    const recorder = new MediaRecorder(canvas.captureStream(25), {mimeType: "video/webm"});
    const parts = [];
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.start();
    for (let step = 0; step < 20; step++) {
        context.fillStyle = `hsl(${18 * step} 80% 50%)`;
        context.fillRect(0, 0, 320, 240);
        await new Promise((resolve) => setTimeout(resolve, 40));
    }
    await new Promise((resolve) => ((recorder.onstop = resolve), recorder.stop()));
    return [...new Uint8Array(await new Blob(parts).arrayBuffer())];
}"""


class Server:
    """A server over the tiny atlas that a test may block, stop, and start again at the same port."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.port = settings, 0
        self.start()

    def start(self) -> None:
        self.app = create_app(self.settings)
        self._server = uvicorn.Server(uvicorn.Config(self.app, port=self.port, log_level="critical"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.02)
            assert self._thread.is_alive(), "the server did not start"
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}{LIVE}"


@pytest.fixture
def server(tiny_atlas: Any) -> Iterator[Server]:
    """One that lets no forward wait, and closes a connection that asks nothing for half a second."""
    server = Server(
        Settings(atlases=(tiny_atlas,), corpora=recorded_corpora(tiny_atlas), forwards_waiting=0, live_idle_s=0.5)
    )
    yield server
    server.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that may meet faults."""
    page = browser.new_page()
    page.set_default_timeout(15000)
    yield page
    page.close()


@pytest.fixture(scope="module")
def filming(browser: Browser) -> Iterator[Browser]:
    """A browser with a made-up camera that it may use."""
    filming = browser.browser_type.launch(executable_path=CHROMIUM, args=FAKE_CAMERA)
    yield filming
    filming.close()


@pytest.fixture(scope="module")
def refusing(browser: Browser) -> Iterator[Browser]:
    """A browser with a made-up camera that nobody may use."""
    refusing = browser.browser_type.launch(executable_path=CHROMIUM, args=FAKE_CAMERA[:2])
    yield refusing
    refusing.close()


def begun(page: Page) -> Page:
    """The page once its first frame is answered."""
    expect(page.locator("#live-rate")).not_to_be_empty(timeout=30_000)  # the first one of a server loads the model
    return page


class Talk:
    """What a page asks and is answered, from its next connection on."""

    def __init__(self, page: Page) -> None:
        self.session: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self._page = page
        page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda payload: self._note(self.session, payload))
        socket.on("framereceived", lambda payload: self._note(self.answers, payload))

    def _note(self, into: list[dict[str, Any]], payload: str | bytes) -> None:
        if isinstance(payload, str):
            into.append(json.loads(payload))

    def at_rest(self) -> int:
        """How much was asked, once all is answered and nothing follows for a second, longer than a busy machine takes
        to code one frame."""
        count = quiet = 0
        while quiet < 4:
            self._page.wait_for_timeout(250)
            quiet = quiet + 1 if count == len(self.session) <= len(self.answers) else 0
            count = len(self.session)
        return count


def said(page: Page, name: str) -> str | None:
    """A parameter of the address, as the page itself has it."""
    return parse_qs(urlsplit(page.evaluate("location.href")).query).get(name, [None])[0]


def test_the_page_begins_with_the_picture_that_excites_the_unit_most(opened: Opened, ask: Ask) -> None:
    first = ask("layers/_blocks.5/units/3/patches?k=1")["rows"][0]
    page = begun(opened(LIVE))
    expect(page.locator("#live-value")).to_have_text(figure(first["activation"]))
    expect(page.locator("#live-share")).to_have_text(f"{percent(1.0)}, row {first['row']}, column {first['col']}")
    expect(page.locator("#live-name")).to_have_text(first["path"])
    expect(page.locator(".live-stored li a")).to_have_count(9)
    assert said(page, "image") == first["image_id"]
    top = ask(f"images/{first['image_id']}/units?layer=_blocks.5&k=8")["rows"]
    assert page.locator("#live-top button").all_inner_texts() == [str(row["channel"]) for row in top]
    mark = page.locator(".live-stored .now")
    assert float(mark.get_attribute("x1") or 0) == 640


@pytest.mark.parametrize("way", ["chosen", pytest.param("dropped", marks=pytest.mark.long)])
def test_a_file_has_the_figures_of_its_upload(opened: Opened, origin: str, way: str) -> None:
    data = picture_bytes(height=150, width=120)
    kept = httpx.post(f"{origin}/api/v1/atlases/tiny/uploads", content=data).json()["id"]
    found = httpx.get(f"{origin}/api/v1/atlases/tiny/uploads/{kept}/map?layer=_blocks.5&unit=3").json()
    page = begun(opened(LIVE))
    if way == "chosen":
        page.locator("#live-pictures").set_input_files({"name": "mine.png", "mimeType": "image/png", "buffer": data})
    else:
        carried = page.evaluate_handle(CARRIED, list(data))
        page.dispatch_event("live-view", "drop", {"dataTransfer": carried})
    expect(page.locator("#live-name")).to_have_text("mine.png")
    expect(page.locator("#live-value")).to_have_text(figure(found["maximum"]))
    expect(page.locator("#live-share")).to_contain_text(f"row {found['row']}, column {found['col']}")
    assert said(page, "image") is None


def test_every_key_acts_as_in_the_toolbox(opened: Opened) -> None:
    page = begun(opened(LIVE))
    for key, unit in (("ArrowRight", "4"), ("ArrowDown", "13"), ("k", "22"), ("j", "21"), ("i", "12"), ("l", "13")):
        page.keyboard.press(key)
        assert said(page, "unit") == f"_blocks.5:{unit}", key
    expect(page.locator("#stored-title")).to_contain_text("_blocks.5:13")
    page.keyboard.press("o")
    assert said(page, "unit") == "_blocks.15:13"
    page.keyboard.press("u")
    page.keyboard.press("u")
    assert said(page, "unit") == "_blocks.0:13"
    for method in ("gradient", "gradient-x-input", "guided", "deconvnet", None):
        page.keyboard.press("b")
        assert said(page, "back") == method
    page.keyboard.press("o")
    page.keyboard.press("b")
    page.keyboard.press("d")
    page.keyboard.press("u")
    assert (said(page, "unit"), said(page, "hold")) == ("_blocks.0:13", "_blocks.5:13")
    expect(page.locator("#live-projected")).to_contain_text("_blocks.5:13")
    for key, part, attribute in (
        ("a", "button[data-key=a]", "aria-pressed"),
        ("s", "button[data-key=s]", "aria-pressed"),
    ):
        page.keyboard.press(key)
        assert page.locator(part).get_attribute(attribute) == "true", key
    expect(page.locator("#live-patches")).to_be_visible()
    page.keyboard.press("s")
    shades = "() => document.querySelector('#live-maps').getContext('2d').getImageData(0, 0, 99, 99).data.join()"
    before = page.evaluate(shades)
    page.keyboard.press("t")
    assert page.evaluate(shades) != before
    page.keyboard.press("z")
    expect(page.locator("#live-zoomed")).to_be_visible()
    for key, part in (("8", "#live-top"), ("9", ".kept")):
        page.keyboard.press(key)
        expect(page.locator(part)).to_be_hidden()
    image = said(page, "image")
    page.keyboard.press("e")
    assert said(page, "image") not in (None, image)
    page.keyboard.press("w")
    assert said(page, "image") == image
    page.keyboard.press("Escape")
    assert (said(page, "unit"), said(page, "back"), said(page, "hold")) == ("_blocks.0:0", None, None)
    page.keyboard.press("h")
    expect(page.get_by_role("dialog")).to_contain_text("hold the unit that is projected")


@pytest.mark.long
def test_the_layers_lie_above_the_first_line_of_units(opened: Opened) -> None:
    page = begun(opened(LIVE))
    for key in ("ArrowUp", "ArrowRight", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert said(page, "unit") == "_blocks.15:4"


def test_buttons_and_the_mosaic_do_what_keys_do(opened: Opened) -> None:
    page = begun(opened(LIVE))
    keys = {button.get_attribute("data-key") for button in page.locator("button[data-key]").all()}
    assert keys == {"c", "f", "w", "e", "h", "b", "d", "u", "o", "s", "a", "t", "z", "8", "9", "Escape"}
    box = page.locator("#live-mosaic").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 2.5 * box["width"] / 9, box["y"] + 1.5 * box["height"] / 9)
    assert said(page, "unit") == "_blocks.5:11"
    page.get_by_role("button", name=re.compile("Backward")).click()
    assert said(page, "back") == "gradient"
    page.locator("#live-unit").fill("7")
    page.locator("#live-unit").press("Enter")
    assert said(page, "unit") == "_blocks.5:7"
    page.locator(".live-stored li a").nth(3).click()
    expect(page.locator("#live-state")).to_be_empty()
    page.reload()
    expect(page.locator("#live-projected")).to_contain_text("_blocks.5:7")


def test_the_newest_frame_wins_where_the_server_is_slow(server: Server, page: Page) -> None:
    talk = Talk(page)
    begun(page.goto(server.address, wait_until="networkidle") and page)
    turns = server.app.state.app_state.admission
    turns._most = 9  # they wait for their turn instead of being refused
    count = talk.at_rest()
    with turns.turn():
        for _ in range(5):
            page.keyboard.press("e")
        newest = said(page, "image")
        expect(page.locator("#live-state")).to_contain_text("No answer yet")
    shown = page.locator("#live-frame[data-image]")
    expect(shown).to_have_attribute("data-image", str(newest))
    expect(page.locator("#live-state")).to_be_empty()
    assert [ask["image"] for ask in talk.session[count:]][1:] == [newest], "one under way, then the newest alone"


def test_an_idle_connection_a_busy_server_and_a_lost_one_are_asked_again(server: Server, page: Page) -> None:
    talk = Talk(page)
    begun(page.goto(server.address) and page)
    page.wait_for_timeout(700)
    count = talk.at_rest()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    assert talk.at_rest() == count + 1, "on a new connection"
    with server.app.state.app_state.admission.turn():
        page.keyboard.press("ArrowRight")
        expect(page.locator("#live-state")).to_contain_text("Asking again in 2 s")
    expect(page.locator("#live-state")).to_be_empty()
    server.stop()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#live-state")).to_contain_text("Asking again in 1 s")
    server.start()
    expect(page.locator("#live-state")).to_be_empty()


def test_a_camera_is_looked_at_until_it_is_frozen(filming: Browser, origin: str) -> None:
    page = filming.new_page()
    talk = Talk(page)
    page.goto(f"{origin}{LIVE}")
    page.get_by_role("button", name="Camera").click()
    page.wait_for_timeout(500)
    count = len(talk.answers)
    page.wait_for_timeout(2000)
    assert len(talk.answers) - count >= 2, "less than a frame a second"
    expect(page.locator("#live-rate")).to_contain_text("frames/s")
    page.keyboard.press("f")
    expect(page.locator("button[data-key=f]")).to_have_attribute("aria-pressed", "true")
    held = talk.at_rest()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    assert talk.at_rest() == held + 1, "another unit of the frozen frame"
    page.keyboard.press("c")
    expect(page.locator("#live-name")).to_contain_text(".jpg")
    page.close()


@pytest.mark.long
def test_a_film_plays_and_stands_still_where_less_motion_is_wanted(opened: Opened) -> None:
    page = begun(opened(LIVE))
    film = {"name": "short.webm", "mimeType": "video/webm", "buffer": bytes(page.evaluate(FILM))}
    page.locator("#live-film").set_input_files(film)
    expect(page.locator("#live-rate")).to_contain_text("frames/s")
    expect(page.locator("#live-name")).to_have_text("short.webm")
    expect(page.locator("button[data-key=f]")).to_have_attribute("aria-pressed", "false")
    page.emulate_media(reduced_motion="reduce")
    page.locator("#live-film").set_input_files(film)
    expect(page.locator("button[data-key=f]")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("refusing", "was refused"), pytest.param("browser", "There is no camera", marks=pytest.mark.long)],
)
def test_without_a_camera_the_page_says_why_and_what_would_do(
    request: pytest.FixtureRequest, origin: str, kind: str, words: str
) -> None:
    chosen: Browser = request.getfixturevalue(kind)
    page = chosen.new_page()
    begun(page.goto(f"{origin}{LIVE}") and page)
    page.keyboard.press("c")
    expect(page.locator("#live-state")).to_contain_text(words)
    page.keyboard.press("ArrowRight")
    assert said(page, "unit") == "_blocks.5:4"
    page.close()


def test_only_the_live_page_may_use_the_camera(origin: str) -> None:
    live, home = (httpx.get(f"{origin}{path}").headers for path in (LIVE, "/"))
    assert "camera=(self)" in live["permissions-policy"] and "camera=()" in home["permissions-policy"]
    assert "media-src 'self' blob:" in live["content-security-policy"]
    assert "blob:" not in home["content-security-policy"]


def test_without_scripts_a_single_picture_can_be_sent(opened: Opened) -> None:
    page = opened(LIVE, java_script_enabled=False)
    assert "a script, which this browser does not run" in page.locator("noscript").inner_text()
    page.locator("#without-script").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": picture_bytes(seed=9)}
    )
    page.get_by_role("button", name="Look at it").click()
    expect(page.get_by_text("the model ran on it")).to_be_visible()
