import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests import kin
from tests.pictures import write_corpus
from unitscope_pipelines.cluster.session import connected
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.ranking import unit_fields

_CACHE = tempfile.TemporaryDirectory(prefix="unitscope-tests-")
with socket.create_server(("127.0.0.1", 0)) as free:
    STORE_PORT = free.getsockname()[1]
os.environ |= {  # here, so that workers that Ray starts have it too
    "UNITSCOPE_CACHE": _CACHE.name,
    "UNITSCOPE_FIELD_EXEMPLARS": "0",  # of commands; tests of effective boxes ask for them
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{STORE_PORT}",
    "AWS_ACCESS_KEY_ID": "writer",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts what it runs in the background so, and the commands that tests interrupt would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
unit_fields.MOST_EXEMPLARS = 0  # by default
TINY_LAYERS = ("_blocks.0", "_blocks.5", "_blocks.15")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin: two processes then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures with the labels blobs and stripes, a copy, a truncated file and a text file."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "tiny")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local cluster for all runs of the session; runs started as commands bring their own."""
    with connected(None):
        yield


@pytest.fixture(scope="session")
def tiny_atlas(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """An atlas of the tiny corpus, made by the real index run with the packaged weights."""
    atlas = tmp_path_factory.mktemp("atlases") / "tiny"
    config = IndexConfig(corpus=str(tiny_corpus), atlas=str(atlas), layers=TINY_LAYERS, batch_size=8, workers=1)
    index(config, lambda _: None)
    return atlas


@pytest.fixture(scope="session")
def kin_folder(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """Small pictures with the atlases `planted` and `permuted` of them, and the atlas `alien` of others."""
    folder = tmp_path_factory.mktemp("kin")
    network, pictures = kin.write_network(folder), kin.write_pictures(folder / "pictures")
    for name in ("planted", "permuted"):
        kin.write_atlas(pictures, folder / name, f"file:{network}:{name}")
    others = kin.write_pictures(folder / "others", brightest=200)
    kin.write_atlas(others, folder / "alien", f"file:{network}:planted", limit=20)
    return folder


@pytest.fixture(scope="session")
def object_store() -> Iterator[Any]:
    """An object store on this machine, which the environment leads to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=STORE_PORT)
    server.start()
    yield boto3.resource("s3")
    server.stop()


@pytest.fixture(scope="session")
def bucket(object_store: Any) -> Any:
    """Its bucket `atlases`, empty at first."""
    made = object_store.Bucket("atlases")
    made.create()
    return made


@pytest.fixture
def pictures_bucket(object_store: Any) -> Iterator[Any]:
    """Its bucket `corpus`, empty for each test."""
    made = object_store.Bucket("corpus")
    made.create()
    yield made
    made.objects.delete()
    made.delete()
