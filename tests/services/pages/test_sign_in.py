"""Browsers sign in with a key: the form, the cookie, what it opens, and the way out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from tests.services.conftest import ORIGIN
from unitscope_services.server.access.key_file import remove_key
from unitscope_services.web.app import Settings, create_app

HTML = {"Accept": "text/html,application/xhtml+xml"}
OWN_PAGE = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
Start = Callable[..., TestClient]


@pytest.fixture
def closed(key_file: Path) -> Iterator[Start]:
    """Starts servers with keys and without an atlas."""
    running: list[TestClient] = []

    def start(origin: str = ORIGIN, **settings: Any) -> TestClient:
        app = create_app(Settings(key_file=key_file, **settings))
        client = TestClient(app, origin, raise_server_exceptions=False, follow_redirects=False)
        client.__enter__()
        running.append(client)
        return client

    yield start
    for client in running:
        client.__exit__(None, None, None)


def sign_in(client: TestClient, key: str, to: str = "/", **headers: str) -> Any:
    return client.post("/sign-in", data={"key": key, "to": to}, headers={**HTML, **OWN_PAGE, **headers})


def test_a_page_that_needs_a_key_shows_the_form_that_leads_back_to_it(closed: Start) -> None:
    answer = closed().get("/docs?v=1&x=%22", headers=HTML)
    assert answer.status_code == 401
    assert answer.headers["cache-control"] == "no-store"
    assert 'action="/sign-in" method="post"' in answer.text
    assert 'name="to" value="/docs?v=1&amp;x=%22"' in answer.text
    assert 'type="password"' in answer.text
    assert "Sign out" not in answer.text
    assert closed().get("/docs").headers["content-type"] == "application/problem+json"
    assert closed().get("/api/v1/atlases", headers=HTML).headers["content-type"] == "application/problem+json"


def test_signing_in_sets_a_cookie_that_pages_cannot_read_and_other_sites_cannot_send(closed: Start) -> None:
    answer = sign_in(closed(), "reader-key", "/docs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/docs")
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert "Secure" not in cookie and "Max-Age" not in cookie and "expires" not in cookie.lower()
    assert answer.headers["cache-control"] == "no-store"


def test_where_the_page_came_by_tls_the_cookie_goes_no_other_way(closed: Start) -> None:
    """Behind a proxy that speaks TLS the server itself sees none of it; the page's own address tells."""
    assert "Secure" in sign_in(closed(), "reader-key", Origin="https://localhost").headers["set-cookie"]


def test_servers_at_two_ports_of_a_host_have_cookies_of_their_own(closed: Start) -> None:
    names = set()
    for port in (8000, 8001):
        client = closed(f"http://localhost:{port}")
        answer = sign_in(client, "reader-key", Origin=f"http://localhost:{port}")
        names.add(answer.headers["set-cookie"].partition("=")[0])
    assert len(names) == 2


@pytest.mark.parametrize("key", ["wrong", "reader-ke", "é; Path=/", " "])
def test_a_wrong_key_is_told_on_the_form_and_sets_no_cookie(closed: Start, key: str) -> None:
    answer = sign_in(closed(), key, "/docs")
    assert answer.status_code == 401
    assert "not known" in answer.text
    assert 'value="/docs"' in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "to",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb", "", "/sign-out"],
)
def test_nobody_is_led_to_another_site(closed: Start, to: str) -> None:
    assert sign_in(closed(), "reader-key", to).headers["location"] == "/"
    assert f'value="{to}"' not in closed().get(f"/sign-in?to={quote(to)}", headers=HTML).text or to == ""


def test_the_cookie_opens_what_the_key_opens_and_no_more(closed: Start) -> None:
    client = closed()
    sign_in(client, "reader-key")
    for path in ("/", "/docs", "/openapi.json", "/version", "/api/v1/atlases"):
        assert client.get(path, headers=HTML).status_code == 200, path
    refused = client.get("/jobs", headers=HTML)
    assert refused.status_code == 403
    assert "Sign in with another key" in refused.text and "Signed in as reader" in refused.text
    assert client.get("/metrics").status_code == 403
    sign_in(client, "owner-key")
    assert client.get("/jobs", headers=HTML).status_code == 200
    assert client.get("/metrics").status_code == 200


def test_a_reader_who_follows_a_link_of_another_site_is_still_signed_in(closed: Start) -> None:
    """The browser holds the cookie back at first; the page has it ask once more."""
    client = closed()
    linked = client.get("/docs?v=1", headers={**HTML, "Sec-Fetch-Site": "cross-site"})
    assert '<meta http-equiv="refresh" content="0; url=/sign-in?to=%2Fdocs%3Fv%3D1">' in linked.text.replace(
        "/docs", "%2Fdocs"
    )
    form = client.get("/sign-in?to=/docs%3Fv=1", headers=HTML)
    assert (form.status_code, "refresh" in form.text) == (200, False)
    sign_in(client, "reader-key")
    assert client.get("/sign-in?to=/docs%3Fv%3D1", headers=HTML).headers["location"] == "/docs?v=1"
    assert client.get("/sign-in?again=true", headers=HTML).status_code == 200


def test_a_header_goes_before_the_cookie(closed: Start) -> None:
    client = closed()
    sign_in(client, "owner-key")
    assert client.get("/jobs", headers={"Authorization": "Bearer reader-key"}).status_code == 403
    assert client.get("/jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_pages_say_who_is_signed_in_and_are_kept_for_that_reader_alone(closed: Start) -> None:
    client = closed(anonymous_read=True)
    before = client.get("/", headers=HTML)
    assert before.headers["cache-control"] == "public, no-cache"
    assert 'href="/sign-in?to=%2F"' in before.text
    sign_in(client, "worker-key")
    after = client.get("/", headers=HTML)
    assert after.headers["cache-control"] == "private, no-cache"
    assert "Signed in as worker" in after.text and 'action="/sign-out" method="post"' in after.text
    assert {"Cookie", "Authorization"} <= set(after.headers["vary"].split(", ")) & set(
        before.headers["vary"].split(", ")
    )
    assert before.headers["etag"] != after.headers["etag"]
    assert client.get("/", headers={**HTML, "If-None-Match": before.headers["etag"]}).status_code == 200


def test_what_anyone_may_read_is_the_same_for_those_who_are_signed_in(closed: Start) -> None:
    client = closed(anonymous_read=True)
    before = client.get("/api/v1/atlases")
    sign_in(client, "reader-key")
    after = client.get("/api/v1/atlases")
    assert (before.headers["etag"], before.headers["cache-control"]) == (
        after.headers["etag"],
        after.headers["cache-control"],
    )


def test_signing_out_forgets_the_key(closed: Start) -> None:
    client = closed()
    sign_in(client, "reader-key")
    answer = client.post("/sign-out", headers=OWN_PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/", headers=HTML).status_code == 401


def test_a_key_that_is_removed_signs_its_reader_out_at_once(closed: Start, key_file: Path) -> None:
    client, replica = closed(), closed()
    sign_in(client, "worker-key")
    replica.cookies = client.cookies
    assert replica.get("/", headers=HTML).status_code == 200, "every process and replica knows the cookie"
    remove_key(key_file, "worker")
    for one in (client, replica):
        assert one.get("/", headers=HTML).status_code == 401


def test_who_had_a_key_may_still_do_what_anyone_may(closed: Start, key_file: Path) -> None:
    client = closed(anonymous_read=True)
    sign_in(client, "worker-key")
    remove_key(key_file, "worker")
    answer = client.get("/", headers=HTML)
    assert answer.status_code == 200
    assert "Signed in as" not in answer.text


def test_another_site_can_neither_sign_a_reader_in_nor_out(closed: Start) -> None:
    client = closed()
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
        assert client.post("/sign-in", data={"key": "reader-key"}, headers=headers).status_code == 403
        assert client.post("/sign-out", headers=headers).status_code == 403


def test_live_frames_are_let_in_by_the_cookie(closed: Start) -> None:
    """With a key that may compute the next question is whether the atlas is there."""
    client = closed()
    for key, status in (("reader-key", 403), ("worker-key", 404)):
        cookie = sign_in(client, key).headers["set-cookie"].partition(";")[0]
        live = "ws://localhost/api/v1/atlases/none/live"
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            client.websocket_connect(live, headers={"Cookie": cookie}),
        ):
            pass
        assert denied.value.status_code == status


def test_a_server_without_keys_has_nothing_to_sign_in_to() -> None:
    with TestClient(create_app(Settings()), ORIGIN) as client:
        assert client.get("/sign-in").status_code == 404
        assert "Sign in" not in client.get("/").text


def test_without_a_key_nothing_answers_but_life_static_files_and_the_form(closed: Start) -> None:
    client = closed()
    open_paths = {"/livez", "/readyz", "/static/{name}", "/sign-in", "/sign-out"}
    for route in client.app.state.routes:  # type: ignore[attr-defined]
        for method in route.methods:
            status = client.request(method, route.path.replace("{channel}", "1")).status_code
            assert (status == 401) != (route.path in open_paths), (method, route.path, status)
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert client.get(path).status_code == 404
