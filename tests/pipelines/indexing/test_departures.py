"""Another corpus is no silent replacement: what would leave an atlas is refused, counted and named (entry 19)."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TINY_LAYERS
from tests.pictures import blobs
from tests.tables import manifest_of, move_root
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.corpora.roots import joined, roots_of, whole_addresses
from unitscope_pipelines.indexing.config import IndexConfig, load_config
from unitscope_pipelines.indexing.departures import check_listing, corpora_of, few, left_images, unlisted_count
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.sealing.version_images import VersionImages
from unitscope_pipelines.indexing.sealing.versions import sealed_versions
from unitscope_pipelines.indexing.upkeep import remove, revert
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import store_of
from unitscope_pipelines.storage.tombstones import present_images
from unitscope_schemas.errors import CorpusError, NotFoundError, UsageError
from unitscope_schemas.manifest import Manifest


def config(corpus: Path | str, atlas: Path, **settings: object) -> IndexConfig:
    return IndexConfig(corpus=str(corpus), atlas=str(atlas), **settings)


def checked(corpus: Path | str, atlas: Path, **settings: object) -> list[str]:
    """The paths that a run would read after the check of its listing."""
    run, manifest = config(corpus, atlas, **settings), manifest_of(atlas)
    listing = corpora_of(list_corpus(run.corpus, run.limit), manifest, run)
    check_listing(listing, manifest, store_of(atlas), run)
    return listing.files["path"].to_pylist()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    folder = tmp_path / "other" / "blobs"
    folder.mkdir(parents=True)
    for number in (1, 3):
        blobs(500 + number).save(folder / f"{number:03d}.jpg")
    return folder.parent


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (8, 1), (40, 4), (999, 99), (10**6, 100)])
def test_few_images_are_one_in_ten_at_least_one_at_most_a_hundred_and_never_all(count: int, most: int) -> None:
    assert few(count) == most


def halved(corpus: Path, _other: Path) -> Path:
    """A disk of which one folder is not mounted."""
    shutil.rmtree(corpus / "stripes")
    return corpus


def shortened(corpus: Path, _other: Path) -> Path:
    """A list of two of the pictures."""
    (corpus / "list.txt").write_text("blobs/001.jpg\nblobs/003.jpg")
    return corpus / "list.txt"


@pytest.mark.parametrize(
    ("change", "limit", "said"),
    [
        (lambda corpus, other: other, None, "is another corpus than"),
        (lambda corpus, other: corpus, 2, "or leave out --limit"),
        (halved, None, "20 of its 40 images would leave, first stripes/000.jpg, stripes/002.jpg, stripes/004.jpg"),
        (lambda corpus, other: corpus / "blobs", None, "is another corpus than"),
        (shortened, None, "they are not in .*list.txt; 38 of its 40 images"),
    ],
    ids=["another folder", "--limit", "half a disk", "a folder below", "a list"],
)
def test_a_run_by_which_images_would_leave_is_refused_before_it_reads_any(
    tiny_corpus: Path,
    tiny_atlas: Path,
    other: Path,
    tmp_path: Path,
    change: Callable[[Path, Path], Path | str],
    limit: int | None,
    said: str,
) -> None:
    corpus, atlas = rooted(tiny_corpus, tiny_atlas, tmp_path)
    before = (atlas / "manifest.json").read_bytes()
    version = manifest_of(atlas).version
    changed = change(corpus, other)
    with pytest.raises(UsageError, match=said) as refused:
        checked(changed, atlas, limit=limit)
    assert f"--replace to let them leave: version {version} keeps them" in str(refused.value)
    assert " of its 40 images would leave" in str(refused.value)
    assert (atlas / "manifest.json").read_bytes() == before
    planned = unlisted_count(list_corpus(str(changed), limit), manifest_of(atlas), store_of(atlas))
    assert f"{planned} of its 40 images would leave" in str(refused.value), "as --plan says it"
    assert (
        checked(changed, atlas, limit=limit, replace=True) == list_corpus(str(changed), limit).files["path"].to_pylist()
    )


def rooted(corpus: Path, atlas: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of a corpus with the times of its files, and one of its atlas that has it as its root."""
    copied = shutil.copytree(corpus, folder / "corpus")
    own = shutil.copytree(atlas, folder / "atlas")
    move_root(own, copied)
    return copied, own


@pytest.mark.parametrize("spelling", ["relative", "slash", "symlink", "dots", "list", "parent", "grown and shrunk"])
def test_the_same_files_by_another_spelling_are_the_same_corpus(
    tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    corpus, atlas = rooted(tiny_corpus, tiny_atlas, tmp_path)
    for name in ("visuals", "patches"):  # pictures by their names too, in the folder above
        shutil.rmtree(atlas / name, ignore_errors=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(corpus)
    if spelling == "grown and shrunk":
        blobs(901).save(corpus / "new.jpg")
        (corpus / "stripes" / "002.jpg").unlink()
    if spelling == "list":
        names = [path.relative_to(tmp_path).as_posix() for path in sorted(corpus.rglob("*.jpg"))]
        (tmp_path / "list.txt").write_text("\n".join(names))
    spelled = {
        "relative": "corpus",
        "slash": f"{corpus}/",
        "symlink": "link",
        "dots": "corpus/../corpus",
        "list": "list.txt",
        "parent": ".",
    }
    assert len(checked(spelled.get(spelling, str(corpus)), atlas)) == 42


def test_an_atlas_of_old_says_its_corpus_by_the_words_of_its_run(tiny_corpus: Path, tiny_atlas: Path) -> None:
    manifest = manifest_of(tiny_atlas)
    old = manifest.model_copy(update={"corpus": manifest.corpus.model_copy(update={"roots": ()})})
    assert roots_of(old) == roots_of(manifest)
    text = old.model_dump_json(exclude={"left": True, "corpus": {"roots"}})
    assert Manifest.model_validate_json(text).model_dump() == old.model_dump()
    listed = old.model_copy(update={"config": {"corpus": "somewhere/list.csv"}})
    assert roots_of(listed)[0].corpus == f"{tiny_corpus}/list.csv"


def test_corpora_beside_each_other_keep_all_files_and_each_path_once(tiny_corpus: Path, tmp_path: Path) -> None:
    """The second has the same paths and the name of a folder of the first; the third lies within the first."""
    second = shutil.copytree(tiny_corpus / "stripes", tmp_path / "blobs")
    (tmp_path / "list.txt").write_text(f"{tiny_corpus}/blobs/001.jpg\nblobs/002.jpg")
    listings = [list_corpus(str(corpus)) for corpus in (tiny_corpus, second, tiny_corpus / "blobs")]
    both = joined(listings)
    assert [root.prefix for root in both.roots] == ["", "blobs-2", "blobs-3"]
    paths = both.files["path"].to_pylist()
    assert paths == sorted(set(paths))
    assert len(paths) == 42 + 21, "the files of the third are those of the first"
    assert "blobs-2/002.jpg" in paths
    labels = dict(zip(paths, both.files["labels"].to_pylist(), strict=True))
    assert (labels["blobs/001.jpg"], labels["blobs-2/002.jpg"] or None) == (["blobs"], None)
    addresses = whole_addresses(both.files["address"], both.root)
    assert all(os.path.isfile(address.removeprefix("file:")) for address in addresses)  # noqa: PTH113
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("s3://bucket/a", "/pictures", "add what lies at s3://"),
        ("/pictures", "s3://bucket/a?region=x", "set AWS_… variables"),
        ("/pictures", "s3://anonymous@bucket/a", "set AWS_… variables"),
    ],
)
def test_a_corpus_whose_files_have_no_whole_addresses_cannot_be_added(
    tiny_corpus: Path, first: str, second: str, said: str
) -> None:
    from dataclasses import replace

    listing = list_corpus(str(tiny_corpus))
    with pytest.raises(UsageError, match=said):
        joined([replace(listing, root=first), replace(listing, root=second)])


def test_files_that_were_edited_or_became_unreadable_count_as_leaving(tiny_atlas: Path, tmp_path: Path) -> None:
    """What only reading shows is refused before a version is sealed."""
    store, manifest = store_of(tiny_atlas), manifest_of(tiny_atlas)
    images = present_images(manifest, store)
    run = config(tmp_path, tiny_atlas)

    def found(count: int) -> VersionImages:
        some = LongTable.of(images.slice(40 - count))
        return VersionImages(some, read_part(store, manifest.skipped), count, frozenset())

    assert left_images(manifest, store, found(40), run) is None
    left = left_images(manifest, store, found(36), run)
    assert left is not None
    assert (left.count, left.version) == (4, manifest.version)
    assert list(left.first) == sorted(images["path"].slice(0, 4).to_pylist())[:3]
    with pytest.raises(UsageError, match=r"edited or no longer readable; 5 of its 40 images would leave"):
        left_images(manifest, store, found(35), run)
    allowed = left_images(manifest, store, found(35), run.model_copy(update={"replace": True}))
    assert allowed is not None
    assert allowed.count == 5


def test_adding_and_replacing_are_flags_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"corpus": "a", "atlas": "b"}
    with pytest.raises(UsageError, match="give one of the two"):
        load_config(IndexConfig, "index", {**flags, "add": True, "replace": True})
    file = tmp_path / "mine.toml"
    file.write_text("[index]\nreplace = true\n")
    with pytest.raises(UsageError, match="replace would hold for every run"):
        load_config(IndexConfig, "index", flags, file)
    monkeypatch.setenv("UNITSCOPE_ADD", "1")
    with pytest.raises(UsageError, match="add would hold for every run"):
        load_config(IndexConfig, "index", flags)


@pytest.mark.long
def test_corpora_are_added_replaced_and_brought_back(
    tiny_corpus: Path, tiny_atlas: Path, other: Path, tmp_path: Path, ray_session: None
) -> None:
    corpus, atlas = rooted(tiny_corpus, tiny_atlas, tmp_path)
    settings = {"layers": TINY_LAYERS, "batch_size": 8, "workers": 1}

    def run(corpus: Path, **flags: bool) -> Manifest:
        return index(config(corpus, atlas, **settings, **flags), lambda _: None)

    first = manifest_of(atlas)
    with pytest.raises(UsageError, match="is another corpus"):
        run(other)
    assert manifest_of(atlas) == first

    both = run(other, add=True)
    assert (both.corpus.image_count, both.forward_count, both.left) == (42, 2, None)
    assert [root.corpus for root in both.corpus.roots] == [str(corpus), str(other)]
    assert {"blobs/001.jpg", "other/blobs/001.jpg"} <= set(version_images(both, store_of(atlas))["path"].to_pylist())
    assert verify(atlas, sample=6, seed=0).faults == []
    assert run(corpus) == run(other) == run(other, add=True) == both, "either name means both"

    shutil.move(other, tmp_path / "away")
    with pytest.raises(CorpusError, match="It is a corpus of this atlas: bring it back, or leave it out with --repla"):
        run(corpus)
    shutil.move(tmp_path / "away", other)

    alone = run(other, replace=True)
    assert (alone.corpus.image_count, alone.forward_count) == (2, 0)
    assert alone.left is not None
    assert (alone.left.count, alone.left.version, len(alone.left.first)) == (40, both.version, 3)
    assert run(other) == alone
    with pytest.raises(UsageError, match="is another corpus"):
        run(corpus)

    remove(atlas, ["blobs/001.jpg"])
    would = revert(atlas, both.version[:8], dry_run=True)
    assert manifest_of(atlas).corpus.image_count == 1
    done = revert(atlas, both.version[:8])
    assert done == would
    assert (done.image_count, done.stale_count) == (41, 1), "what was removed by hand stays out"
    assert manifest_of(atlas).version == done.version
    assert revert(atlas, first.version).image_count == 40
    assert {manifest.version for manifest in sealed_versions(atlas)} >= {first.version, both.version, alone.version}
    with pytest.raises(NotFoundError, match="has no version 'f00'"):
        revert(atlas, "f00")
    moved = corpus.rename(tmp_path / "moved")
    there = run(moved, replace=True)
    assert (there.corpus.root, there.version, there.left) == (str(moved), first.version, None)
    (atlas / both.segments[0].tables.images.path).unlink()
    with pytest.raises(NotFoundError, match=r"parts of version .* were deleted"):
        revert(atlas, both.version)
