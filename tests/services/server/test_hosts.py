"""From where a server may be asked: its own names, its own pages, and programs."""

from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from tests.services.conftest import Start
from unitscope_schemas.errors import UsageError
from unitscope_services.server.access.hosts import Hosts


def status(client: TestClient, host: str, **headers: str) -> int:
    return client.get("/", headers={"Host": host, **headers}).status_code


def posted(client: TestClient, **headers: str) -> int:
    """What becomes of a request that would act: 404, for the atlas is not there, or 403."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.delete("/api/v1/atlases/none/uploads/x", headers=named).status_code


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LOCALHOST.", "atlas.localhost:1", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000"],
)
def test_loopback_names_are_always_let_in(bare: Start, host: str) -> None:
    assert status(bare(), host) == 200


@pytest.mark.parametrize("host", ["10.1.2.3:8000", "[fd00::1]", "192.0.2.7"])
def test_a_number_is_no_name_that_another_site_could_turn_here(bare: Start, host: str) -> None:
    """So do the probes of Kubernetes ask, and Prometheus, by the number of a pod."""
    assert status(bare(), host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "api", "localhost@evil",
     "notlocalhost", "[::1]evil", "2130706433", "localhost:80:80"],
)  # fmt: skip
def test_a_name_that_is_not_the_servers_is_refused_with_the_option_that_lets_it_in(bare: Start, host: str) -> None:
    for path in ("/", "/livez", "/metrics", "/api/v1/atlases"):
        answer = bare().get(path, headers={"Host": host})
        assert answer.status_code == 421, path
        assert "--allowed-host" in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"


def test_allowed_names_and_those_below_them_are_let_in(bare: Start) -> None:
    client = bare(allowed_hosts=("atlas.example.org", "*.inner.example", "API"))
    for host in ("atlas.example.org", "Atlas.Example.org:443", "a.inner.example", "a.b.inner.example:1", "api:8000"):
        assert status(client, host) == 200, host
    for host in ("inner.example", "example.org", "atlas.example.org.evil.example", "xatlas.example.org"):
        assert status(client, host) == 421, host


@pytest.mark.parametrize("name", ["", "*", "http://a.example", "a.example:80", "a b", "*.*.example", "a/b"])
def test_what_is_no_host_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        Hosts([name])


def test_two_hosts_in_one_request_are_refused(bare: Start) -> None:
    headers: Any = [("Host", "localhost"), ("Host", "evil.example")]
    assert bare().get("/", headers=headers).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://localhost:81"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "http://localhost:81"},
        {"Origin": "https://localhost:444"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "file://"},
        {"Origin": "http://["},
        {"Origin": "ftp://localhost"},
        {"Sec_Fetch_Site": "same-origin", "Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "none", "Origin": "null"},
    ],
    ids=str,
)
def test_what_another_page_would_have_done_is_refused(bare: Start, headers: dict[str, str]) -> None:
    assert posted(bare(), **headers) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "same-origin", "Origin": "http://localhost"},
        {"Origin": "http://localhost:80"},
        {"Origin": "https://localhost", "Sec_Fetch_Site": "same-origin"},
    ],
    ids=str,
)
def test_programs_and_the_servers_own_pages_go_on_behind_tls_too(bare: Start, headers: dict[str, str]) -> None:
    assert posted(bare(), **headers) == 404


def test_pages_of_other_sites_may_link_here(bare: Start) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}
    assert bare().get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "headers", "refusal"),
    [
        ("evil.example", {}, 421),
        ("localhost", {"Origin": "http://localhost:81"}, 403),
        ("localhost", {"Origin": "null"}, 403),
        ("localhost", {"Sec-Fetch-Site": "same-site"}, 403),
        ("localhost", {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, 403),
        ("localhost", {"Origin": "http://localhost"}, 404),
        ("localhost", {}, 404),
    ],
)
def test_the_same_rule_holds_for_websockets(bare: Start, host: str, headers: dict[str, str], refusal: int) -> None:
    """What is let in is told that the atlas is not there."""
    live = f"ws://{host}/api/v1/atlases/none/live"
    with pytest.raises(WebSocketDenialResponse) as denied, bare().websocket_connect(live, headers=headers):
        pass
    assert denied.value.status_code == refusal


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/atlases/none/uploads/x", "DELETE, GET, HEAD, OPTIONS"),
        ("PUT", "/api/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("PATCH", "/api/v1/jobs/x/cancel", "OPTIONS, POST"),
        ("POST", "/api/v1/atlases.csv", "GET, HEAD, OPTIONS"),
        ("PUT", "/a/none/uploads", "OPTIONS, POST"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
    ],
)
def test_an_address_names_all_its_methods(bare: Start, method: str, path: str, allowed: str) -> None:
    client = bare()
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["detail"] == f"{method} is not possible here; possible is {allowed}"
    options = client.options(path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, allowed, b"")


def test_there_are_no_methods_where_nothing_is(bare: Start) -> None:
    assert bare().options("/nothing").status_code == 404
