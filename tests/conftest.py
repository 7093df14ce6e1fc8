import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from pipelines.cluster import connected
from pipelines.config import IndexConfig
from pipelines.index import index
from tests.pictures import write_corpus

TINY_LAYERS = ("_blocks.0", "_blocks.5", "_blocks.15")


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
