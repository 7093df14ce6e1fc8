import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from pipelines.config import IndexConfig
from pipelines.index import index
from tests.pictures import write_corpus

TINY_LAYERS = ("_blocks.0", "_blocks.5", "_blocks.15")


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures with the labels blobs and stripes, a copy, a truncated file and a text file."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "tiny")


@pytest.fixture(scope="session")
def tiny_atlas(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas of the tiny corpus, made by the real index run with the packaged weights."""
    atlas = tmp_path_factory.mktemp("atlases") / "tiny"
    index(IndexConfig(corpus=str(tiny_corpus), atlas=str(atlas), layers=TINY_LAYERS, batch_size=8), lambda _: None)
    return atlas
