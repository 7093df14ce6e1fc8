"""The patch index: which is chosen, what it finds, what it says about itself."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.tables import manifest_of, vectors_of
from unitscope_pipelines.indexing.patches.build import add_index
from unitscope_pipelines.indexing.patches.index import IndexPlan, build_memory, choose_index, spread
from unitscope_pipelines.indexing.patches.recall import Truth
from unitscope_pipelines.indexing.patches.vectors import VectorFile, Vectors
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import Embedding, PatchIndex
from unitscope_schemas.errors import CapacityError
from unitscope_schemas.geometry import Box
from unitscope_schemas.manifest import Manifest
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.nearest.segment_vectors import SegmentVectors
from unitscope_services.queries.neighbors import PatchSearch

IMAGES, REGIONS = 600, 4


def written(file: Path, vectors: np.ndarray) -> VectorFile:
    """Image × region × number, written as images come."""
    stored = VectorFile(file, vectors.shape[0] * vectors.shape[1], vectors.shape[2], vectors.shape[1])
    order = np.random.default_rng(0).permutation(len(vectors)).tolist()
    stored.write((image, vectors[image]) for image in order)
    return stored


def clustered(width: int, images: int = IMAGES) -> np.ndarray:
    """Sixty clusters of images whose regions are near each other; the last image is all zeros."""
    rng = np.random.default_rng(5)
    image = rng.standard_normal((60, width))[rng.integers(60, size=images)] + rng.standard_normal((images, width))
    vectors = image[:, None] + rng.standard_normal((images, REGIONS, width)) / 2
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[-1] = 0
    return vectors.astype(np.float16)


def unit(vectors: np.ndarray) -> Vectors:
    rows = vectors.reshape(-1, vectors.shape[-1]).astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def indexed(root: Path, vectors: np.ndarray, code: str) -> SegmentVectors:
    """Vectors with the index that a large atlas would have."""
    count, width = vectors.shape[0] * vectors.shape[1], vectors.shape[2]
    written(root / "vectors.npy", vectors)
    part = Part(path="vectors.npy", rows=count, size_bytes=0, sha256="0" * 64)
    embedding = Embedding(layer="layer", width=width, regions=[Box(0, 0, 1, 1)] * REGIONS)
    plan = IndexPlan(count, width, lists=32, reduced=128 if width > 128 else 0, code=code)
    store = store_of(root)
    return SegmentVectors(store, embedding, add_index(store, "segment", embedding, PatchIndex.none(part), plan))


@pytest.fixture(scope="module", params=[("SQ8", 200), ("SQ8", 40), ("RaBitQ", 200)])
def search(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SegmentVectors:
    code, width = request.param
    return indexed(tmp_path_factory.mktemp("patches"), clustered(width), code)


@pytest.fixture(scope="module")
def copied(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny atlas, to be written into."""
    return shutil.copytree(tiny_atlas, tmp_path_factory.mktemp("copied") / "tiny")


@pytest.fixture(scope="module")
def approximate(copied: Path) -> Manifest:
    """The atlas with a compressed index, as a large atlas has it."""
    manifest = manifest_of(copied)
    (segment,) = manifest.segments
    plan = IndexPlan(segment.patches.vectors.rows, manifest.embedding.width, lists=16, reduced=128, code="SQ8")
    added = add_index(store_of(copied), "approximate", manifest.embedding, segment.patches, plan)
    return manifest.model_copy(update={"segments": [segment.model_copy(update={"patches": added})]})


def search_with(tiny_atlas: Path, manifest: Manifest) -> PatchSearch:
    atlas = Atlas(tiny_atlas)
    atlas.manifest = manifest
    return PatchSearch(atlas)


def test_few_vectors_are_scanned_and_little_memory_takes_the_smaller_index() -> None:
    assert choose_index(50_000, 320) is None
    assert choose_index(12_500, 1280) is None
    assert [plan.factory for plan in (choose_index(1_000_000, 1280), choose_index(200_000, 96)) if plan] == [
        "PCA128,IVF4096,SQ8",
        "IVF2048,SQ8",
    ]
    small, usual = choose_index(10_000_000, 1280, memory_bytes=1_000_000_000), choose_index(10_000_000, 1280)
    assert small is not None
    assert usual is not None
    assert (small.factory, usual.factory) == ("PCA128,IVF16384,RaBitQ", "PCA128,IVF16384,SQ8")
    assert small.served_bytes < 1_000_000_000 < usual.served_bytes < usual.memory_bytes
    assert build_memory(small) == small.memory_bytes < build_memory(usual)


def test_an_index_that_does_not_fit_the_memory_it_may_take_is_refused_in_words() -> None:
    most = choose_index(10_000_000, 1280, memory_bytes=340_000_000)
    assert most is not None
    assert most.served_bytes <= 340_000_000
    with pytest.raises(CapacityError, match=r"an index of 10,000,000 patches takes at least 0\.329 GB when served"):
        choose_index(10_000_000, 1280, memory_bytes=300_000_000)
    assert choose_index(12_500, 1280, memory_bytes=1) is None, "an exact scan takes none"


@pytest.mark.parametrize("count", [12_501, 60_000, 1_000_000, 30_000_000, 1_000_000_000])
def test_lists_grow_with_the_vectors_and_have_the_training_that_faiss_recommends(count: int) -> None:
    plan, larger = choose_index(count, 1280), choose_index(4 * count, 1280)
    assert plan is not None
    assert larger is not None
    assert larger.lists in (2 * plan.lists, 4 * plan.lists, 65_536)
    assert 39 <= plan.training_count / plan.lists <= 256
    assert plan.memory_bytes <= larger.memory_bytes


def test_a_sample_is_spread_over_all_vectors_and_seeded() -> None:
    ids = spread(1000, 50, seed=3)
    assert np.array_equal(ids // 20, np.arange(50))
    assert np.array_equal(ids, spread(1000, 50, seed=3))
    assert np.array_equal(spread(7, 7, seed=0), np.arange(7))


def test_vectors_are_read_as_they_were_written(tmp_path: Path) -> None:
    vectors = clustered(40)
    stored = written(tmp_path / "vectors.npy", vectors)
    assert np.array_equal(np.load(stored.path), vectors.reshape(-1, 40))
    blocks = list(stored.blocks())
    assert np.allclose(np.concatenate([block for _, block in blocks]), unit(vectors), atol=1e-6)
    ids = np.array([0, 5, 5, 2399])
    assert np.allclose(stored.rows(ids), unit(vectors)[ids], atol=1e-6)


def test_truth_equals_a_plain_scan_without_the_own_image() -> None:
    vectors = clustered(40, images=90)
    rows = unit(vectors)
    asked = np.array([0, 17, 200, 359])
    truth = Truth(rows[asked], asked // REGIONS, REGIONS)
    for start in range(0, len(rows), 40):
        truth.add(start, rows[start : start + 40])
    for query, own, best in zip(rows[asked], asked // REGIONS, truth.best, strict=True):
        scores = [max(float(rows[image * REGIONS + r] @ query) for r in range(REGIONS)) for image in range(90)]
        plain = sorted((score for image, score in enumerate(scores) if image != own), reverse=True)[:10]
        assert np.allclose(np.sort(best)[::-1], plain, atol=1e-5)


def test_recall_is_measured_stored_and_as_wanted(search: SegmentVectors) -> None:
    patches = search.patches
    assert not patches.exact
    # so few vectors leave one-bit codes short of what is wanted on some machines; what is stored is the truth then
    assert patches.recall_at_10 >= (0.97 if "RaBitQ" in patches.factory else 0.99)
    assert patches.short_list >= 10 * REGIONS
    assert 8 <= patches.probes <= 32


def test_answers_of_the_index_have_the_recall_that_is_stored(search: SegmentVectors) -> None:
    found = asked = 0
    for patch in range(0, (IMAGES - 1) * REGIONS, 37):
        query = np.asarray(search.stored[patch], np.float32)
        scores, ids = search.best(query, 11)
        true = search.best(query, 11, exact=True)[0]
        assert len({patch // REGIONS for patch in ids}) == 11
        assert ids[0] == patch
        found += int((np.array(scores[1:]) >= true[-1] - 1e-6).sum())
        asked += 10
    assert found / asked >= search.patches.recall_at_10 - 0.02


def test_length_of_the_query_does_not_matter(search: SegmentVectors) -> None:
    query = np.asarray(search.stored[100], np.float32)
    assert search.best(query, 9)[1] == search.best(1000 * query, 9)[1]
    assert len(search.best(0 * query, 9)[1]) == 9


def test_as_many_images_as_are_asked_for(search: SegmentVectors) -> None:
    ids = search.best(np.asarray(search.stored[0], np.float32), 300)[1]
    assert len({patch // REGIONS for patch in ids}) == 300


@pytest.mark.parametrize("share", [0.7, 0.3])
def test_images_that_were_removed_are_never_found(search: SegmentVectors, share: float) -> None:
    """Nor do others get lost: with few left the search is exact."""
    present = np.random.default_rng(9).random(IMAGES) < share
    left = SegmentVectors(search.store, search.embedding, search.patches, present)
    assert left.exact == (share < 0.5)
    missed = 0
    for patch in range(0, (IMAGES - 1) * REGIONS, 53):
        query = np.asarray(search.stored[patch], np.float32)
        found = [patch // REGIONS for patch in left.best(query, 10)[1]]
        whole = [patch // REGIONS for patch in search.best(query, IMAGES, exact=True)[1]]
        assert present[found].all()
        assert len(set(found)) == 10
        true = [image for image in whole if present[image]][:10]
        missed += len(set(true) - set(found))
    asked = 10 * len(range(0, (IMAGES - 1) * REGIONS, 53))
    assert missed / asked <= (0 if left.exact else 0.05)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_filter_chooses_among_the_images_that_are_left(search: SegmentVectors, share: float) -> None:
    random = np.random.default_rng(10)
    present = random.random(IMAGES) < 0.7
    chosen = present & (random.random(IMAGES) < share)
    left = SegmentVectors(search.store, search.embedding, search.patches, present)
    patches, missed = range(0, (IMAGES - 1) * REGIONS, 53), 0
    for patch in patches:
        query = np.asarray(search.stored[patch], np.float32)
        _, found, exact = left.best_of(chosen, query, 10)
        whole = [patch // REGIONS for patch in search.best(query, IMAGES, exact=True)[1]]
        true = [image for image in whole if chosen[image]][:10]
        images = [patch // REGIONS for patch in found]
        assert chosen[images].all()
        assert len(set(images)) == 10
        assert not exact or images == true
        assert exact or share == 0.5
        missed += len(set(true) - set(images))
    assert missed / (10 * len(patches)) <= 0.05


def test_eight_clients_get_the_answers_of_one(search: SegmentVectors) -> None:
    queries = [np.asarray(search.stored[patch], np.float32) for patch in range(0, 2000, 10)]
    alone = [search.best(query, 9) for query in queries]
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(lambda query: search.best(query, 9), queries)) == alone


def test_stored_vectors_are_those_of_the_shards(tiny_atlas: Path) -> None:
    manifest = manifest_of(tiny_atlas)
    images = version_images(manifest, store_of(tiny_atlas)).to_pylist()
    vectors = np.load(tiny_atlas / manifest.segments[0].patches.vectors.path)
    regions = len(manifest.embedding.regions)
    assert regions == 14
    by_place = {
        (receipt.shard, row["row"], row["region"]): row
        for receipt in manifest.shards
        for row in read_part(store_of(tiny_atlas), receipt.embeddings).to_pylist()
    }
    for image in images[::7]:
        for region in range(regions):
            row = by_place[image["shard"], image["shard_row"], region]
            assert np.array_equal(vectors[image["image"] * regions + region], np.array(row["vector"], np.float16))


def test_approximate_answers_agree_with_the_exact_scan(copied: Path, approximate: Manifest) -> None:
    assert approximate.segments[0].patches.recall_at_10 >= 0.95
    search = search_with(copied, approximate)
    agreed = asked = 0
    for number in range(0, 40, 3):
        image = search.atlas.images([number])[number]
        vector, box = search.stored(image, None) or pytest.fail("the whole view is stored")
        near = search.nearest(vector, box, limit=2)
        true = search.nearest(vector, box, limit=2, exact=True)
        assert (near.search.exact, true.search.exact) == (False, True)
        assert near.rows[0].image_id == image.image_id
        agreed += len({row.image_id for row in near.rows} & {row.image_id for row in true.rows})
        asked += 2
    assert agreed / asked >= 0.95


def test_exact_scan_equals_faiss_flat_search(tiny_atlas: Path) -> None:
    search = search_with(tiny_atlas, manifest_of(tiny_atlas))
    vectors = vectors_of(tiny_atlas, manifest_of(tiny_atlas)).reshape(-1, search.embedding.width).astype(np.float32)
    faiss.normalize_L2(vectors)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    for patch in (3, 77, 200):
        scores, ids = flat.search(vectors[patch : patch + 1], len(vectors))
        first_of_image = dict.fromkeys(int(i) // 14 for i in ids[0])
        rows = search.nearest(vectors[patch], search.embedding.regions[0], limit=5).rows
        assert rows[0].score == pytest.approx(float(scores[0, 0]), abs=1e-6)
        images = search.atlas.images(list(first_of_image)[:5])
        assert {row.image_id for row in rows} == {image.image_id for image in images.values()}
