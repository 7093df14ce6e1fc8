"""The server itself: life, figures, its own description."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.services.conftest import UNIT
from unitscope_schemas.errors import NotFoundError, OverloadError, UsageError
from unitscope_services.server.atlas_registry import AtlasRegistry
from unitscope_services.server.limits.admission import Admission
from unitscope_services.web.serving import bound_native_threads


def test_the_server_says_that_it_lives_and_what_it_is(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert set(client.get("/version").json()) == {"version", "api", "format_version"}


@pytest.mark.parametrize(
    "module", ["unitscope_services.web.app", "unitscope_services.queries.session", "unitscope_services.queries.units"]
)
def test_what_answers_from_the_atlas_alone_starts_without_the_model_and_the_index(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'torchvision', 'faiss', 'ray'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_libraries_compute_on_half_of_the_cores_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said before any of them is imported, which is when they look."""
    code = "import sys, unitscope_services.web.serving; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    for said, counts in (("7", "7"), ("", str(max(1, (os.cpu_count() or 1) // 2)))):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        if not said:
            monkeypatch.delenv("OMP_NUM_THREADS")
        bound_native_threads()
        assert os.environ["OMP_NUM_THREADS"] == counts


def test_figures_are_labelled_by_route_not_by_address(client: TestClient) -> None:
    client.get(UNIT)
    client.get("/api/v1/secret-name")
    text = client.get("/metrics").text
    assert re.search(
        r'unitscope_responses_total\{method="GET",route="/api/v1/atlases/\{atlas\}/layers/\{layer\}/units/\{channel\}",'
        r'status="200"\} \d', text
    )  # fmt: skip
    assert 'route="unmatched",status="404"' in text
    assert "secret-name" not in text
    assert "_blocks.5" not in text
    names = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert all(re.search(r"_(seconds|bytes|total|count|created)$", name) for name in names), names


def test_every_answer_carries_the_safe_headers(client: TestClient) -> None:
    for address in ("/", UNIT, "/nothing", "/static/unitscope.css", "/metrics"):
        headers = client.get(address).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-request-id"]


@pytest.mark.parametrize("address", ["/api/v1/jobs/.parquet", "/api/v1/jobs/", "/api/v1/jobs%2F", f"{UNIT}/"])
def test_the_api_redirects_nowhere(client: TestClient, address: str) -> None:
    for method in ("GET", "DELETE"):
        answer = client.request(method, address, follow_redirects=False)
        assert answer.status_code in (404, 405), answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_page_answers_with_a_slash_at_its_end_too(client: TestClient) -> None:
    page = client.get("/a/tiny/layers/_blocks.5/", follow_redirects=False)
    assert page.status_code == 200
    assert page.text == client.get("/a/tiny/layers/_blocks.5").text


def test_openapi_names_a_model_for_every_answer_and_problems_for_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    assert len(operations) > 25
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, method, operation in operations:
        assert operation["description"], path
        for status in ("4XX", "5XX"):
            assert operation["responses"][status]["content"] == problem, path
        good = next(response for status, response in operation["responses"].items() if status.startswith("2"))
        if method == "delete" or path == "/metrics" or path.endswith(("{kind}", ".png")):
            continue
        assert "$ref" in good["content"]["application/json"]["schema"], path
    assert "HTTPValidationError" not in str(document)


def test_the_documentation_asks_nothing_of_other_servers(client: TestClient) -> None:
    text = client.get("/docs").text
    assert "http" not in text.replace("http-equiv", "")
    assert "/api/v1/atlases/{atlas}/layers/{layer}/units/{channel}/patches" in text


def test_two_atlases_of_one_name_are_refused(tiny_atlas: Path) -> None:
    with pytest.raises(UsageError, match="two atlases are called 'tiny'"):
        AtlasRegistry((tiny_atlas, tiny_atlas))


def test_a_directory_that_is_no_atlas_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no atlas"):
        AtlasRegistry((tmp_path,))


def test_turns_let_one_in_one_wait_and_refuse_the_third() -> None:
    turns = Admission(running=1, waiting=1)
    entered = threading.Event()

    def second() -> None:
        with turns.turn():
            entered.set()

    with turns.turn():
        thread = threading.Thread(target=second)
        thread.start()
        while turns.present < 2:
            time.sleep(0.001)
        assert not entered.is_set()
        with pytest.raises(OverloadError), turns.turn():
            pass
    thread.join(5)
    assert entered.is_set()
    assert turns.present == 0


def test_many_clients_at_once_get_the_same_answer(client: TestClient) -> None:
    expected = client.get(f"{UNIT}/patches").json()
    found: list[Any] = []

    def ask() -> None:
        found.extend(client.get(f"{UNIT}/patches").json() for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 40
