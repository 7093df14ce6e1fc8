"""Jobs and uploads belong to the key that made them: for all others they are not there."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.services.conftest import bearer
from tests.services.server.test_jobs import JOBS, QUICK, ended
from unitscope_schemas import layout
from unitscope_schemas.answers.jobs import Job
from unitscope_schemas.errors import NotFoundError
from unitscope_services.server.settings import Settings
from unitscope_services.server.shared import Shared, held

API = "/api/v1/atlases/tiny"


@pytest.fixture
def closed(served: Any, key_file: Path, tiny_atlas: Path) -> Iterator[TestClient]:
    """A server with a second key that may compute."""
    digest = hashlib.sha256(b"other-key").hexdigest()
    key_file.write_text(f"{key_file.read_text()}\nother compute {digest}\n")
    yield served(key_file=key_file, anonymous_read=True)
    shutil.rmtree(tiny_atlas / layout.VISUALS, ignore_errors=True)


def seen(client: TestClient, method: str, address: str, name: str, **options: Any) -> int:
    return client.request(method, address, headers=bearer(name), **options).status_code


def test_an_upload_is_there_for_its_key_and_admin_alone(closed: TestClient, tiny_corpus: Path) -> None:
    data = next(tiny_corpus.rglob("*.jpg")).read_bytes()
    made = closed.post(f"{API}/uploads", content=data, headers=bearer("worker")).json()
    here, page = f"{API}/uploads/{made['id']}", f"/a/tiny/uploads/{made['id']}"
    addresses = [
        here, page, f"{here}/units", f"{here}/map?layer=_blocks.5&unit=3", f"{here}/map.png?layer=_blocks.5&unit=3",
        f"{here}/cells?layer=_blocks.5&row=0&col=0", f"{here}/neighbors", f"{here}/picture.jpg",
        f"{page}/here?layer=_blocks.5&cell=0,0",
    ]  # fmt: skip
    for address in addresses:
        assert seen(closed, "GET", address, "other") == 404, address
        assert closed.get(address).status_code == 401, address
        assert seen(closed, "GET", address, "owner") == 200, address
        assert seen(closed, "GET", address, "worker") == 200, address
    batch = {"uploads": [made["id"]], "k": 1}
    assert seen(closed, "POST", f"{API}/neighbors", "other", json=batch) == 404
    assert seen(closed, "POST", f"{API}/neighbors", "worker", json=batch) == 200
    foreign, absent = (
        closed.get(f"{API}/uploads/{name}", headers=bearer("other")).json()["detail"] for name in (made["id"], "x" * 22)
    )
    assert foreign.replace(made["id"], "") == absent.replace("x" * 22, "")
    assert seen(closed, "DELETE", here, "other") == 404
    assert seen(closed, "DELETE", here, "worker") == 204
    assert seen(closed, "GET", here, "owner") == 404


def test_a_job_is_there_for_its_key_and_admin_alone(closed: TestClient) -> None:
    made = closed.post(JOBS, json=QUICK, headers=bearer("worker"))
    here, page = made.headers["location"], f"/jobs/{made.json()['id']}"
    ended(closed, here, headers=bearer("worker"))
    for method, address in (
        ("GET", here), ("GET", f"{here}/events"), ("GET", page), ("DELETE", here), ("POST", f"{here}/cancel"),
        ("POST", f"{page}/cancel"),
    ):  # fmt: skip
        assert seen(closed, method, address, "other") == 404, (method, address)
        assert closed.request(method, address).status_code == 401, (method, address)
        assert seen(closed, method, address, "owner") == 200, (method, address)
        assert seen(closed, method, address, "worker") == 200, (method, address)
    lists = {
        name: [row["id"] for row in closed.get(JOBS, headers=bearer(name)).json()["rows"]]
        for name in ("worker", "other", "owner")
    }
    assert lists == {"worker": [made.json()["id"]], "other": [], "owner": [made.json()["id"]]}
    assert made.json()["id"] in closed.get("/jobs", headers=bearer("owner")).text
    assert made.json()["id"] not in closed.get("/jobs", headers=bearer("other")).text


def test_on_a_server_without_keys_everything_is_everyones(client: TestClient, tiny_corpus: Path) -> None:
    data = next(tiny_corpus.rglob("*.jpg")).read_bytes()
    made = client.post(f"{API}/uploads", content=data).json()
    assert client.get(f"{API}/uploads/{made['id']}", headers=bearer("anyone")).status_code == 200
    assert client.delete(f"{API}/uploads/{made['id']}").status_code == 204


def test_what_several_processes_share_keeps_apart_what_belongs_to_different_keys() -> None:
    """The registry and the uploads are asked from there, as `--workers 2` does."""
    job = Job(
        id="a", kind="optimise", atlas="tiny", state="running", done=0, total=0, unit="steps", created="",
        seconds=0.0, problem=None, results=(), query={**QUICK},  # type: ignore[arg-type]
    )  # fmt: skip
    with held(Settings()) as address:
        first, second = Shared.held_at(address), Shared.held_at(address)
        first.job_registry.take(job, "anna", 1)
        assert second.job_registry.find("a", "anna").id == "a"
        assert [one.id for one in second.job_registry.all(None)] == ["a"]
        assert second.job_registry.all("bob") == []
        for ask in (second.job_registry.find, second.job_registry.cancel):
            with pytest.raises(NotFoundError, match="no job"):
                ask("a", "bob")
        assert second.job_registry.cancel("a", "anna").id == "a"
