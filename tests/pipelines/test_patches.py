"""The patch index: what it finds, what it says about itself."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from pipelines.catalogue import read_part
from pipelines.patches import EmbeddedLayer, build_patches
from schemas.manifest import Manifest
from services.atlas import Atlas
from services.search import PatchSearch
from tests.tables import manifest_of


@pytest.fixture(scope="module")
def indexed(tiny_atlas: Path) -> Manifest:
    """The tiny atlas with a compressed index, as a large atlas has it."""
    manifest = manifest_of(tiny_atlas)
    layer = EmbeddedLayer(manifest.patches.layer, manifest.patches.width, manifest.patches.regions, exact_up_to=0)
    patches = build_patches(tiny_atlas, "approximate", layer, manifest.shards, manifest.images)
    return manifest.model_copy(update={"patches": patches})


def search_with(tiny_atlas: Path, manifest: Manifest) -> PatchSearch:
    atlas = Atlas(tiny_atlas)
    atlas.manifest = manifest
    return PatchSearch(atlas)


def test_stored_vectors_are_those_of_the_shards(tiny_atlas: Path) -> None:
    manifest = manifest_of(tiny_atlas)
    images = read_part(tiny_atlas, manifest.images).to_pylist()
    vectors = np.load(tiny_atlas / manifest.patches.vectors.path)
    regions = len(manifest.patches.regions)
    assert regions == 14
    by_place = {
        (receipt.shard, row["row"], row["region"]): row
        for receipt in manifest.shards
        for row in read_part(tiny_atlas, receipt.embeddings).to_pylist()
    }
    for image in images[::7]:
        for region in range(regions):
            row = by_place[image["shard"], image["shard_row"], region]
            assert np.array_equal(vectors[image["image"] * regions + region], np.array(row["vector"], np.float16))


def test_index_recall_is_measured_stored_and_high(indexed: Manifest) -> None:
    assert not indexed.patches.exact
    assert indexed.patches.index is not None
    assert indexed.patches.recall_at_10 >= 0.95


def test_approximate_answers_agree_with_the_exact_scan(tiny_atlas: Path, indexed: Manifest) -> None:
    search = search_with(tiny_atlas, indexed)
    agreed = asked = 0
    for number in range(0, 40, 3):
        image = search.atlas.images([number])[number]
        vector, box = search.stored(image, None) or pytest.fail("the whole view is stored")
        near = search.nearest(vector, box, limit=2)
        true = search.nearest(vector, box, limit=2, exact=True)
        assert (near.search.exact, true.search.exact) == (False, True)
        assert near.rows[0].image_id == image["image_id"]
        agreed += len({row.image_id for row in near.rows} & {row.image_id for row in true.rows})
        asked += 2
    assert agreed / asked >= 0.95


def test_exact_scan_equals_faiss_flat_search(tiny_atlas: Path) -> None:
    search = search_with(tiny_atlas, manifest_of(tiny_atlas))
    vectors = np.asarray(search.vectors, np.float32)
    faiss.normalize_L2(vectors)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    for patch in (3, 77, 200):
        scores, ids = flat.search(vectors[patch : patch + 1], len(vectors))
        first_of_image = dict.fromkeys(int(i) // 14 for i in ids[0])
        rows = search.nearest(vectors[patch], search.patches.regions[0], limit=5).rows
        assert rows[0].score == pytest.approx(float(scores[0, 0]), abs=1e-6)
        images = search.atlas.images(list(first_of_image)[:5])
        assert {row.image_id for row in rows} == {image["image_id"] for image in images.values()}
