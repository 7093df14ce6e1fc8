"""One flipped bit, in any file of an atlas, is found by `verify`, and no reader answers from it."""

import shutil
from pathlib import Path

import pytest

from tests.pipelines.indexing.verification.flips import PAGE, flipped, with_every_kind
from tests.tables import manifest_of
from unitscope_pipelines.indexing.verification.digests import Digests
from unitscope_pipelines.storage.stores import store_of


@pytest.fixture(scope="module")
def atlas(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas of every kind of file."""
    copied = tmp_path_factory.mktemp("flips") / "atlas"
    shutil.copytree(tiny_atlas, copied)
    return with_every_kind(copied)


def test_an_atlas_of_every_kind_of_file_is_whole(atlas: Path) -> None:
    digests = Digests(store_of(atlas), manifest_of(atlas))
    assert (digests.faults, digests.unsealed) == ([], [])


def test_every_flipped_bit_is_found_and_no_reader_answers_from_it(atlas: Path) -> None:
    counts = list(flipped(atlas, 4))
    assert len(counts) >= 20, [one.kind for one in counts]
    for one in counts:
        assert (one.found, one.refused) == (one.flips, one.read), one
    assert Digests(store_of(atlas), manifest_of(atlas)).faults == []


def test_the_page_tells_of_every_kind_that_there_is(atlas: Path) -> None:
    told = PAGE.read_text()
    for one in flipped(atlas, 1):
        assert f"| `{one.kind}` |" in told
