import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from unitscope_services.queries.session import Session
from unitscope_services.web.app import Settings, create_app

Start = Callable[..., TestClient]

ORIGIN = "http://localhost"
"""Where test clients ask: servers are asked under their own names only."""
UNIT = "/api/v1/atlases/tiny/layers/_blocks.5/units/3"


@pytest.fixture(scope="session")
def client(tiny_atlas: Path, tiny_corpus: Path) -> Iterator[TestClient]:
    """An open server over the tiny atlas."""
    with TestClient(
        create_app(Settings(atlases=(tiny_atlas,), corpora=(str(tiny_corpus),))), ORIGIN, raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture(scope="session")
def session(tiny_atlas: Path) -> Session:
    """The same atlas, asked without a server."""
    return Session(tiny_atlas)


@pytest.fixture
def served(bare: Start, tiny_atlas: Path, tiny_corpus: Path) -> Start:
    """Starts further servers over the tiny atlas with other settings."""
    return lambda **settings: bare(**{"atlases": (tiny_atlas,), "corpora": (str(tiny_corpus),), **settings})


@pytest.fixture
def bare() -> Iterator[Start]:
    """Starts servers without any atlas, with some settings."""
    running: list[TestClient] = []

    def start(**settings: Any) -> TestClient:
        client = TestClient(create_app(Settings(**settings)), ORIGIN, raise_server_exceptions=False)
        client.__enter__()
        running.append(client)
        return client

    yield start
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Keys `reader`, `worker` and `owner`, each with the scope of its rank."""
    lines = ["# who may ask what", ""]
    for name, scope in (("reader", "read"), ("worker", "read,compute"), ("owner", "admin")):
        lines.append(f"{name} {scope} {hashlib.sha256(f'{name}-key'.encode()).hexdigest()}")
    path = tmp_path / "keys"
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


def bearer(name: str) -> dict[str, str]:
    """The header that carries one of the keys."""
    return {"Authorization": f"Bearer {name}-key"}
