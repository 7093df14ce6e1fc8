"""An atlas of someone else's: links that lead out, what is no file, and roots that say whom to ask."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from unitscope_pipelines.storage.filesystem import Folder
from unitscope_pipelines.storage.originals import Originals
from unitscope_pipelines.storage.stores import FolderStore
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError, CorpusError

SECRET = "what nobody asked for"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """A folder beside which a secret lies."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text(SECRET)
    (tmp_path / "atlas" / "units").mkdir(parents=True)
    (tmp_path / "atlas" / "units" / "own").write_text("own")
    return FolderStore(tmp_path / "atlas")


def part(path: str) -> Part:
    return Part(path=path, rows=1, size_bytes=3, sha256="0" * 64)


@pytest.mark.parametrize("linked", ["file", "folder", "folder above"])
def test_a_link_that_leads_out_is_not_followed(linked: str, store: FolderStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    path = {"file": "units/linked", "folder": "ranked/secret", "folder above": "visuals/a/secret"}[linked]
    target = store.address / path
    if linked == "file":
        target.symlink_to(outside / "secret")
    else:
        (outside / "a").mkdir()
        shutil.copy(outside / "secret", outside / "a" / "secret")
        (store.address / path.split("/")[0]).symlink_to(outside)
    with pytest.raises(AtlasError, match="a link that leads out of the atlas"):
        store.hold(part(path))
    for ask in (store.read, store.digest):
        with pytest.raises(AtlasError, match="a link that leads out of the atlas"):
            ask(path)
    if linked != "file":
        with pytest.raises(AtlasError, match="leads out"), store.writing(path.replace("secret", "new")) as temporary:
            temporary.write_text("written")
        assert not [file for file in outside.rglob("*") if "new" in file.name]


def test_links_within_the_atlas_and_to_it_are_followed(store: FolderStore, tmp_path: Path) -> None:
    (store.address / "units" / "other").symlink_to(store.address / "units" / "own")
    (tmp_path / "by_link").symlink_to(store.address)
    for opened in (store, FolderStore(tmp_path / "by_link")):
        assert opened.read("units/other") == b"own"
        with opened.hold(part("units/own")) as file:
            assert file.read_text() == "own"


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_not_opened(kind: str, store: FolderStore) -> None:
    path = store.address / "units" / "odd"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    done: list[str] = []

    def ask() -> None:
        for question in (lambda: store.hold(part("units/odd")), lambda: store.digest("units/odd")):
            with pytest.raises(AtlasError, match="a folder, pipe or device"):
                question()
        done.append(kind)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(10)
    assert not asking.is_alive() and done == [kind]


@pytest.mark.parametrize(
    "root",
    [
        "s3://bucket/a?endpoint_override=127.0.0.1:9",
        "s3://bucket/a?scheme=http&allow_bucket_creation=true",
        "s3://KEY@bucket/a",
        "s3://KEY:hidden@bucket/a",
        "s3://bucket?access_key=a&secret_key=b",
    ],
)
def test_a_root_that_says_whom_to_ask_is_refused_and_not_repeated(root: str) -> None:
    with pytest.raises(CorpusError, match="set AWS_… variables") as caught:
        Folder(root)
    assert "hidden" not in str(caught.value) and "KEY" not in str(caught.value)


@pytest.mark.parametrize("host", ["a?endpoint_override=127.0.0.1:9", "KEY:hidden@a", "a?region=x", ""])
def test_an_address_that_says_whom_to_ask_is_not_asked(host: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="says how it is asked for"):
        Originals(str(tmp_path)).read(f"file:s3://{host}/picture.jpg")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_picture_that_is_no_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    address = "file:/dev/zero" if kind == "device" else "file:odd"
    with pytest.raises(OSError, match=f"it is a {'named pipe' if kind == 'pipe' else kind}"):
        Originals(str(tmp_path)).read(address)
