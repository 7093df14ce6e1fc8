"""Requests made from the API's own description, good and bad ones: no failure, no status nor type it does not tell.

The first seed is the same in every run, the second a new one, which a failure names: `UNITSCOPE_FUZZ_SEED` repeats it.
"""

import os
import random
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable

from tests.conftest import TINY_LAYERS
from unitscope_services.queries.session import Session
from unitscope_services.web.app import Settings, create_app
from unitscope_services.web.connection import BoundedConnection

schemathesis = pytest.importorskip("schemathesis", reason="the extra dev holds it")
requests = pytest.importorskip("requests")

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

CASES = int(os.environ.get("UNITSCOPE_FUZZ_CASES", "8"))
"""Requests of each kind to each operation."""
TIME_S = 80
"""Time of one seed, after which the operations that are left get one request."""
SEEDS = [20_261_130, int(os.environ.get("UNITSCOPE_FUZZ_SEED", secrets.randbelow(2**31)))]


@pytest.fixture(scope="module")
def address(tiny_atlas: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on this machine, as it is without keys, whose atlas cannot be written: jobs are judged and refused."""
    limits: dict[str, Any] = {"forwards_waiting": 2, "uploads_kept": 8, "question_timeout_s": 5}
    app = create_app(
        Settings(atlases=(tiny_atlas,), corpora=(str(tiny_corpus),), jobs_running=1, jobs_waiting=1, **limits)
    )
    server = uvicorn.Server(uvicorn.Config(app, http=BoundedConnection, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
        assert thread.is_alive(), "the server did not start"
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def names(session: Session) -> dict[str, list[str]]:
    """What path parameters may name, so that most requests come to more than a 404."""
    images = [row.image_id for row in session.atlas.images(range(5)).values()]
    return {
        "atlas": ["tiny"],
        "layer": [*TINY_LAYERS, "first"],
        "image": images,
        "channel": ["0", "3", "15"],
        "kind": ["png", "jpg", "webp", "patch", "optimised"],
    }


@pytest.mark.parametrize("seed", SEEDS, ids=["fixed", "fresh"])
def test_no_request_fails_the_server_or_gets_what_is_not_documented(
    seed: int, address: str, names: dict[str, list[str]]
) -> None:
    sys.stdout.write(f"seed {seed}\n")
    document = requests.get(f"{address}/openapi.json", timeout=60).json()
    chance, started, faults = random.Random(seed), time.monotonic(), dict[str, str]()
    statuses: dict[str, Counter[int]] = {}
    with requests.Session() as connection:
        for result in schemathesis.openapi.from_dict(document).get_all_operations():
            operation = result.ok()
            for mode in schemathesis.GenerationMode:
                count = CASES if time.monotonic() - started < TIME_S else 1

                @seeded(seed)
                @settings(
                    max_examples=count,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(operation.as_strategy(generation_mode=mode))
                def ask(case: Any) -> None:
                    for name in case.path_parameters or ():
                        if name in names and chance.random() < 0.8:
                            case.path_parameters[name] = chance.choice(names[name])
                    status, fault = answered(case, address, connection)
                    statuses.setdefault(case.operation.label, Counter())[status] += 1
                    if fault:
                        faults.setdefault(f"{case.operation.label} {status}", fault)

                with suppress(Unsatisfiable):  # nothing of this kind can be asked
                    ask()
    good = [label for label, own in statuses.items() if any(status < 300 for status in own)]
    assert len(good) > len(statuses) / 3, f"seed {seed}: hardly any request was a good one: {statuses}"
    assert not faults, f"seed {seed}\n" + "\n".join(f"{name}: {text}" for name, text in faults.items())


def answered(case: Any, address: str, connection: Any) -> tuple[int, str]:
    """The status of an answer, and what is wrong with it; empty if nothing is."""
    checks = schemathesis.checks
    answer = case.call(base_url=address, session=connection, timeout=60, allow_redirects=False)
    if answer.status_code >= 500 and not (answer.status_code == 503 and "retry-after" in answer.headers):
        return answer.status_code, f"{case.as_curl_command()}\n{answer.text[:500]}"
    documented = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]
    try:
        case.validate_response(answer, checks=documented)
    except checks.FailureGroup as failures:
        told = "\n".join(str(failure) for failure in failures.exceptions)[:2000]
        return answer.status_code, f"{case.as_curl_command()}\n{answer.text[:200]}\n{told}"
    return answer.status_code, ""
