"""Jobs: taken, followed, stopped, refused; and one picture by every way to ask."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import unitscope
from tests.services.conftest import bearer
from unitscope_schemas import layout
from unitscope_schemas.answers.jobs import OptimiseJob
from unitscope_services.server.job_registry import JobRegistry
from unitscope_services.server.jobs import Jobs
from unitscope_services.server.settings import Settings

JOBS = "/api/v1/jobs"
QUICK = {"kind": "optimise", "atlas": "tiny", "units": ["_blocks.0:3"], "steps": 3}
LONG = {**QUICK, "steps": 100_000}


@pytest.fixture(autouse=True)
def unstored(tiny_atlas: Path) -> Iterator[None]:
    """Each test begins and ends without stored pictures."""
    shutil.rmtree(tiny_atlas / layout.VISUALS, ignore_errors=True)
    yield
    shutil.rmtree(tiny_atlas / layout.VISUALS, ignore_errors=True)


def ended(client: TestClient, address: str, **options: Any) -> dict[str, Any]:
    """The job once it has ended."""
    for _ in range(600):
        job: dict[str, Any] = client.get(address, **options).json()
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(0.1)
    raise AssertionError(job)


def test_a_job_ends_with_the_address_of_what_it_stored(client: TestClient) -> None:
    answer = client.post(JOBS, json=QUICK)
    assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
    job = ended(client, answer.headers["location"])
    assert (job["state"], job["done"], job["total"], job["unit"]) == ("done", 3, 3, "steps")
    (address,) = job["results"]
    assert client.get(address).content.startswith(b"\x89PNG")
    assert client.get(JOBS).json()["rows"][0]["id"] == job["id"]


@pytest.mark.long
def test_the_same_seed_gives_the_same_pixels_from_command_line_python_and_api(
    client: TestClient, tiny_atlas: Path
) -> None:
    job = ended(client, client.post(JOBS, json=QUICK).headers["location"])
    by_api = client.get(job["results"][0]).content
    linked = client.get(job["results"][0].rpartition("/")[0]).json()["rows"]
    assert sorted(row.pop("url") for row in linked) == sorted(job["results"])
    listed = linked

    shutil.rmtree(tiny_atlas / layout.VISUALS)
    atlas = unitscope.open_atlas(str(tiny_atlas))
    rows = atlas.optimise("_blocks.0:3", steps=3).to_pylist()
    assert atlas.visualisation("_blocks.0:3", rows[0]["id"]) == by_api
    assert [row["activation"] for row in rows] == [row["activation"] for row in listed]

    shutil.rmtree(tiny_atlas / layout.VISUALS)
    picture = tiny_atlas.parent / "by-command.png"
    command = [sys.executable, "-m", "unitscope", "optimise", str(tiny_atlas), "_blocks.0:3", "--steps", "3"]
    # threads must not matter
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([*command, "--out", str(picture), "--json"], env=environment, capture_output=True, check=True)
    assert picture.read_bytes() == by_api
    assert json.loads(done.stdout)["rows"] == listed


def test_events_tell_every_state_until_the_end(client: TestClient) -> None:
    address = client.post(JOBS, json=QUICK).headers["location"]
    text = client.get(f"{address}/events").text
    told = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    assert told[-1]["state"] == "done"
    assert [job["done"] for job in told] == sorted(job["done"] for job in told)
    assert "event: done" in text


def test_a_cancelled_job_stops_and_leaves_nothing_half_made(client: TestClient, tiny_atlas: Path) -> None:
    address = client.post(JOBS, json=LONG).headers["location"]
    while client.get(address).json()["done"] == 0:
        time.sleep(0.05)
    assert client.delete(address).status_code == 200
    assert ended(client, address)["state"] == "cancelled"
    assert not [path for path in (tiny_atlas / layout.VISUALS).rglob("*") if path.is_file()]


def test_only_so_many_jobs_wait(served: Any) -> None:
    client = served(jobs_waiting=1)
    addresses = [client.post(JOBS, json={**LONG, "seed": seed}).headers["location"] for seed in range(2)]
    refused = client.post(JOBS, json=LONG)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    for address in addresses[::-1]:
        client.post(f"{address}/cancel")
    assert {ended(client, address)["state"] for address in addresses} == {"cancelled"}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"kind": "dream"}, 400, "optimise"),
        ({"atlas": "other"}, 404, "there are tiny"),
        ({"units": ["_blocks.0:999"]}, 404, "units 0 to 15"),
        ({"units": ["layer9"]}, 404, "_blocks.15"),
        ({"recipe": "magic"}, 400, "olah2017"),
        ({"objective": "logit"}, 400, "channel"),
        ({"objective": "class", "units": ["tigre cat"]}, 404, "tiger cat"),
        ({"objective": "direction"}, 400, "-direction"),
        ({"direction": [1.0] * 16}, 400, "-direction"),
        ({"objective": "direction", "direction": [1.0] * 15, "units": ["_blocks.0"]}, 400, "16 finite numbers"),
        ({"objective": "direction", "direction": [1e99] * 16, "units": ["_blocks.0"]}, 400, "16 finite numbers"),
        ({"objective": "direction", "direction": [1.0] * 16, "units": ["_blocks.*"]}, 404, "_blocks.15"),
        ({"start": "/etc/passwd"}, 404, "passwd"),
        ({"recipe": "none", "count": 2}, 400, "no diversity"),
        ({"steps": 0}, 400, "steps"),
        ({"stepz": 1}, 400, "stepz"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused_with_what_would_do(
    client: TestClient, change: dict[str, Any], status: int, words: str
) -> None:
    answer = client.post(JOBS, json={**QUICK, **change})
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text


def test_a_job_is_refused_where_the_server_cannot_write(client: TestClient, tiny_atlas: Path) -> None:
    (tiny_atlas / layout.VISUALS).write_text("in the way")
    answer = client.post(JOBS, json=QUICK)
    (tiny_atlas / layout.VISUALS).unlink()
    assert answer.status_code == 409
    assert "unitscope optimise" in answer.json()["detail"]
    assert str(tiny_atlas) not in answer.text


def test_jobs_need_the_scope_compute(served: Any, key_file: Path) -> None:
    client = served(key_file=key_file)
    for method, address in (("post", JOBS), ("get", JOBS), ("delete", f"{JOBS}/x"), ("get", f"{JOBS}/x/events")):
        assert client.request(method, address).status_code == 401, address
        assert client.request(method, address, headers=bearer("reader")).status_code == 403, address
    assert client.get(f"{JOBS}/x", headers=bearer("worker")).status_code == 404


def test_ended_jobs_are_forgotten_when_newer_ones_come(client: TestClient, session: Any) -> None:
    registry = JobRegistry(Settings(jobs_kept=1, jobs_waiting=8))
    jobs = Jobs(registry, running=1)
    made = [jobs.add(OptimiseJob(**QUICK), "", session) for _ in range(3)]
    while registry.find(made[-1].id, sees=None).state != "done":
        time.sleep(0.05)
    last = jobs.add(OptimiseJob(**QUICK), "", session)
    assert {job.id for job in registry.all(sees=None)} == {last.id, made[-1].id}
    jobs.close()
