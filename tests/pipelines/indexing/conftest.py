"""An atlas and its corpus that a test may change."""

import shutil
from pathlib import Path

import pytest

from tests.tables import move_root


@pytest.fixture
def atlas(tiny_atlas: Path, tmp_path: Path) -> Path:
    """A copy of the tiny atlas."""
    return shutil.copytree(tiny_atlas, tmp_path / "atlas")


@pytest.fixture
def corpus(tiny_corpus: Path, atlas: Path, tmp_path: Path) -> Path:
    """A copy of its corpus, which that copy says to be made of."""
    copied = shutil.copytree(tiny_corpus, tmp_path / "corpus")
    move_root(atlas, copied)
    return copied
