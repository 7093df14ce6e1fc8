"""Pictures are opened only below the folders that whoever serves an atlas allows, by where links and names lead."""

import hashlib
import os
from pathlib import Path

import pytest

from unitscope_pipelines.storage.allowed_roots import (
    AllowedRoots,
    OutsideError,
    PictureRoots,
    hidden_roots,
    lies_below,
)
from unitscope_pipelines.storage.originals import Original, Originals
from unitscope_schemas.entries.corpus import CorpusEntry, CorpusRoot
from unitscope_schemas.errors import NotFoundError

PICTURE, SECRET = b"a picture", b"what nobody allowed"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus with a picture, a link inside and links out of it, and beside it what is not of it."""
    folder = tmp_path / "corpus"
    (folder / "own").mkdir(parents=True)
    (folder / "own" / "a.jpg").write_bytes(PICTURE)
    (tmp_path / "corpus-2").mkdir()
    for place in (tmp_path / "secret.jpg", tmp_path / "corpus-2" / "secret.jpg"):
        place.write_bytes(SECRET)
    (folder / "inside.jpg").symlink_to(folder / "own" / "a.jpg")
    (folder / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "folder").symlink_to(tmp_path / "corpus-2")
    return folder


def entry(root: str, *further: str) -> CorpusEntry:
    roots = tuple(CorpusRoot(corpus=each, root=each) for each in (root, *further))
    counts = dict.fromkeys(("image_count", "file_count", "skipped_count", "ignored_count", "label_count"), 0)
    return CorpusEntry(root=root, roots=roots if further else (), **counts)


@pytest.mark.parametrize(
    "address", ["file:own/a.jpg", "file:own/../own/a.jpg", "file:inside.jpg", "range:2+7:inside.jpg"]
)
def test_a_picture_below_an_allowed_folder_is_read(address: str, corpus: Path) -> None:
    assert PICTURE.endswith(Originals(PictureRoots(str(corpus), (str(corpus),))).read(address))


@pytest.mark.parametrize("part", ["file:", "range:0+3:", "cell:0/0:", "escaped-file:"])
@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "own/../../secret.jpg",
        "{parent}/secret.jpg",
        "{parent}/corpus-2/secret.jpg",
        "out.jpg",
        "folder/secret.jpg",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/environ",
        "s3://bucket/a.jpg",
        "s3://bucket/../a.jpg",
        "own/a\x00.jpg",
    ],
)
def test_what_leads_out_is_not_opened(name: str, part: str, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(os, "open", lambda *words: opened.append(words))
    address = part + name.format(parent=corpus.parent)
    with pytest.raises(OutsideError, match="outside the folders whose pictures may be read"):
        Originals(PictureRoots(str(corpus), (str(corpus),))).read(address)
    assert not opened


def test_sizes_are_not_told_either(corpus: Path) -> None:
    with pytest.raises(OutsideError):
        Originals(PictureRoots(str(corpus), (str(corpus),))).folder.sizes(["/etc/passwd"])


@pytest.mark.parametrize(
    "root", ["s3://bucket/a", "s3://bucket/a?endpoint_override=127.0.0.1:9", "s3://KEY:hidden@bucket"]
)
def test_a_store_that_is_not_allowed_is_never_asked(root: str, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for allowed in ((str(corpus),), ("s3://other",), ("s3://bucket/a/b",)):
        with pytest.raises(OutsideError):
            Originals(PictureRoots(root, allowed)).read("file:picture.jpg")


def test_the_reader_is_told_what_would_do_and_the_log_where_it_lies(
    corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    originals = Originals(PictureRoots(str(corpus), (str(corpus),)))
    image = Original(hashlib.sha256(SECRET).hexdigest(), "out.jpg", ("file:out.jpg",))
    for _ in range(2):
        with pytest.raises(NotFoundError, match="whoever runs it adds --corpus ROOT") as caught:
            originals.read_original(image)
        assert str(corpus) not in str(caught.value)
    assert [str(corpus / "out.jpg") in record.getMessage() for record in caplog.records] == [True]


def test_another_file_with_the_same_bytes_that_may_be_read_is_read(corpus: Path) -> None:
    originals = Originals(PictureRoots(str(corpus), (str(corpus),)))
    image = Original(hashlib.sha256(PICTURE).hexdigest(), "a.jpg", ("file:/elsewhere/a.jpg", "file:own/a.jpg"))
    assert originals.read_original(image) == PICTURE


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a", True),
        ("/a/../b", "/a", False),
        ("/ab", "/a", False),
        ("/a", "/", True),
        ("/a", "s3://a", False),
        ("s3://a/b", "/", False),
        ("s3://a/b/c", "s3://a/b", True),
        ("s3://a/b/c", "s3://anonymous@a/b/", True),
        ("s3://anonymous@a/b/c", "s3://a", True),
        ("s3://a/bc", "s3://a/b", False),
        ("s3://a/b/../c", "s3://a/b", False),
        ("s3://ab/b", "s3://a", False),
        ("s3://KEY@a/b", "s3://a", False),
        ("s3://a:1/b", "s3://a", False),
        ("s3:/a/b", "/", False),
    ],
)
def test_what_lies_below(path: str, root: str, below: bool) -> None:
    assert lies_below(path, root) is below


@pytest.mark.parametrize(
    ("recorded", "further", "named", "place", "hidden"),
    [
        ("/photos", (), (), "/photos", ("/photos",)),
        ("/atlases/a/corpus", (), (), "/atlases/a/corpus", ()),
        ("/atlases/b", (), (), "/atlases/b", ("/atlases/b",)),
        ("/photos", (), ("/photos",), "/photos", ()),
        ("/photos/2020", (), ("/photos",), "/photos/2020", ()),
        ("/photos", (), ("/new",), "/new", ()),
        ("/", (), ("/photos",), "/photos", ()),
        ("/photos", ("/more",), ("/photos",), "/photos", ("/more",)),
        ("/photos", ("/more",), ("/more",), "/photos", ("/photos",)),
        ("/photos", ("/more",), ("/more", "/new"), "/new", ()),
        ("/photos", (), ("/other", "/photos"), "/photos", ()),
        ("s3://a/photos", (), (), "s3://a/photos", ("s3://a/photos",)),
        ("s3://a/photos", (), ("s3://a",), "s3://a/photos", ()),
        ("s3://a/photos", (), ("/copy",), "/copy", ()),
        ("s3://a/photos?scheme=http", (), ("s3://a",), "s3://a/photos?scheme=http", ("s3://a/photos?scheme=http",)),
    ],
)
def test_a_named_folder_allows_the_recorded_one_or_is_where_that_is_now(
    recorded: str, further: tuple[str, ...], named: tuple[str, ...], place: str, hidden: tuple[str, ...]
) -> None:
    corpus = entry(recorded, *further)
    pictures = AllowedRoots(named).place(corpus, Path("/atlases/a"))
    assert pictures.root == place
    assert hidden_roots(corpus, pictures) == hidden


def test_an_owner_on_the_own_machine_reads_what_was_recorded() -> None:
    assert hidden_roots(entry("/photos", "/more"), PictureRoots("/photos")) == ()
