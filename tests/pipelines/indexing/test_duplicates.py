"""Near duplicates are grouped, different pictures are not, and one of a group answers for all."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import blobs
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.sealing.duplicates import MOST_FLIPPED_BITS, MOST_TINT_STEPS, duplicate_groups
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30))
def test_groups_equal_all_pairs_compared(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    for number in range(1, count, 2):
        hashes[number] = hashes[rng.integers(number)]
        for bit in rng.integers(0, 256, rng.integers(0, 14)):
            hashes[number, bit // 8] ^= 1 << (bit % 8)
    tints = rng.integers(0, 12, (count, 3), dtype=np.uint8)
    found = duplicate_groups(hashes, tints)
    group = list(range(count))
    for a in range(count):
        for b in range(a):
            flipped = int(np.unpackbits(hashes[a] ^ hashes[b]).sum())
            steps = int(np.abs(tints[a].astype(int) - tints[b].astype(int)).max())
            if flipped <= MOST_FLIPPED_BITS and steps <= MOST_TINT_STEPS:
                low, high = sorted((group[a], group[b]))
                group = [low if g == high else g for g in group]
    assert found.tolist() == group


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Atlas:
    """Twelve pictures, three of them also re-encoded, one of these twice."""
    folder = tmp_path_factory.mktemp("near")
    for number in range(12):
        picture = blobs(number, 128, 160)
        picture.save(save_in(folder / "corpus") / f"{number:02d}.png")
        for quality in (60, 80)[: {0: 1, 1: 1, 2: 2}.get(number, 0)]:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality)
            (folder / "corpus" / f"{number:02d}-{quality}.jpg").write_bytes(buffer.getvalue())
    config = IndexConfig(
        corpus=str(folder / "corpus"), atlas=str(folder / "a"), layers=("_blocks.0",), batch_size=8, workers=1
    )
    index(config, lambda _: None)
    return Atlas(folder / "a")


def save_in(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_re_encoded_pictures_share_a_group_and_others_have_none(atlas: Atlas) -> None:
    images = [atlas.find_image(f"{number:02d}.png") for number in range(12)]
    assert all(image.duplicate_group is None for image in images[3:])
    for number in range(3):
        group = images[number].duplicate_group
        assert group is not None
        assert atlas.find_image(f"{number:02d}-60.jpg").duplicate_group == group


@pytest.mark.parametrize("order", ["desc", "asc", "random"])
@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_one_of_a_group_answers_for_all_on_every_page(atlas: Atlas, order: str, limit: int) -> None:
    expanded = follow(atlas, order, limit, expand=True)
    assert len(expanded) == len({row.image_id for row in expanded}) == 16
    collapsed = follow(atlas, order, limit, expand=False)
    seen: set[str] = set()
    expected = []
    by_rank = expanded if order != "random" else sorted(expanded, key=lambda row: row.rank)
    for row in by_rank:
        if row.duplicate_group is None or row.duplicate_group not in seen:
            expected.append(row.image_id)
            seen.add(row.duplicate_group or "")
    assert sorted(row.image_id for row in collapsed) == sorted(expected)
    if order != "random":
        assert [row.image_id for row in collapsed] == expected


def follow(atlas: Atlas, order: str, limit: int, expand: bool) -> list:
    rows, cursor = [], None
    while True:
        query = TopQuestion(k=limit, order=order, duplicates="expand" if expand else "collapse", cursor=cursor)
        page = patches(atlas, UnitId("_blocks.0", 5), query)
        rows += page.rows
        cursor = page.next
        if cursor is None:
            return rows
