"""Entries 12, 13 and 14: odd names, links and what is no file; whatever is not read is counted and named."""

import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from PIL import Image

from unitscope_pipelines.corpora.listing import Listing, list_corpus
from unitscope_pipelines.storage.originals import Originals
from unitscope_schemas.addresses import Address, Cell, Range, as_text
from unitscope_schemas.entries.corpus import CorpusEntry, others_text
from unitscope_schemas.errors import CorpusError


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


def contents(listed: Listing) -> dict[str, bytes]:
    originals = Originals(listed.root)
    rows = listed.files.read(["path", "address"]).to_pylist()
    return {row["path"]: originals.read(row["address"]) for row in rows}


def reasons(listed: Listing) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in listed.refused.to_pylist()}


NAMES = [
    b"caf\xe9.png",
    b"\xff\xfe.png",
    b"back\\slash\xe9.png",
    b"deep\xe9/\xe8.png",
    b"new\nline.png",
    b"esc\x1b[31m.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_that_is_no_text_is_listed_escaped_and_read(name: bytes, tmp_path: Path) -> None:
    whole = os.fsencode(tmp_path) + b"/" + name
    os.makedirs(os.path.dirname(whole), exist_ok=True)  # noqa: PTH103, PTH120  (a name of bytes)
    with open(whole, "wb") as file:  # noqa: PTH123
        file.write(picture(1))
    listed = list_corpus(str(tmp_path))
    (path,) = listed.files["path"].to_pylist()
    path.encode()
    assert path == as_text(os.fsdecode(name))
    assert contents(listed) == {path: picture(1)}
    assert listed.files["label"].to_pylist() == ([r"deep\xe9"] if b"/" in name else [None])


def test_a_list_and_a_corpus_beside_each_other_read_names_that_are_no_text(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123
        file.write(picture(2))
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    (tmp_path / "list.jsonl").write_text('{"path": "zero\\u0000byte.png"}\n')
    named, zero = (list_corpus(str(tmp_path / name)) for name in ("list.txt", "list.jsonl"))
    assert contents(named) == {r"caf\xe9.png": picture(2)}
    with pytest.raises(FileNotFoundError, match="no file can have this name"):
        contents(zero)


def test_two_files_with_one_name_as_text_are_not_confused(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123
        file.write(picture(1))
    (tmp_path / r"caf\xe9.png").write_bytes(picture(2))
    listed = list_corpus(str(tmp_path))
    assert len(listed.files) == 1
    assert "same name as text" in reasons(listed)[r"caf\xe9.png"]


@pytest.mark.parametrize("part", [None, Range(512, 9), Cell(2, 1)])
@pytest.mark.parametrize("name", ["a\udce9.png", "b\\\udcff:c", "\ud800", "plain\\x41", "escaped-file:x"])
def test_an_address_of_any_name_is_read_as_it_was_written(name: str, part: Range | Cell | None) -> None:
    text = str(Address(name, part))
    text.encode()
    assert Address.parse(text) == Address(name, part)


def test_a_root_whose_name_is_no_text_is_refused_and_a_link_to_it_is_taken(tmp_path: Path) -> None:
    root = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(root).mkdir()
    (Path(root) / "a.png").write_bytes(picture(1))
    with pytest.raises(CorpusError, match=r"caf\\xe9 is no UTF-8 text.* give a link"):
        list_corpus(root)
    (tmp_path / "plain").symlink_to(root)
    listed = list_corpus(str(tmp_path / "plain"))
    assert (listed.root, contents(listed)) == (str(tmp_path / "plain"), {"a.png": picture(1)})


def test_folders_behind_links_are_listed_once_and_circles_end(tmp_path: Path) -> None:
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    for folder in (corpus / "own", elsewhere / "deep"):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(picture(len(folder.name)))
    (corpus / "away").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(corpus)
    (elsewhere / "deep" / "again").symlink_to(elsewhere)
    (corpus / "above").symlink_to("..")
    (corpus / "twin").symlink_to("own")
    (corpus / "b.png").symlink_to(elsewhere / "deep" / "a.png")
    listed = list_corpus(str(corpus))
    assert contents(listed) == {"own/a.png": picture(3), "away/deep/a.png": picture(4), "b.png": picture(4)}
    assert listed.files["label"].to_pylist() == ["away/deep", None, "own"]
    assert listed.others == {"links to folders that are listed already": 4}


def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "piped.png").symlink_to("pipe.png")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "socket.png"))
    listed = list_corpus(str(tmp_path))
    kinds = {path: reason.partition(";")[0].partition(":")[0] for path, reason in reasons(listed).items()}
    pipes, links = dict.fromkeys(("pipe.png", "piped.png"), "named pipe"), dict.fromkeys(("gone.png", "circle.png"))
    assert kinds == pipes | dict.fromkeys(links, "broken link") | {"null.png": "device", "socket.png": "socket"}
    assert list(contents(listed)) == ["a.png"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "gone"])
def test_a_list_that_names_what_is_no_file_says_so_at_reading(kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.txt").write_text(f"{kind}\n")
    listed = list_corpus(str(tmp_path / "list.txt"))
    with pytest.raises(OSError, match=r"named pipe|folder|No such file"):
        Originals(listed.root).read(listed.files["address"][0].as_py())


@contextmanager
def nobody() -> Iterator[None]:
    """Run as a user without rights where the tests are run by root, whom no rights stop."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


def test_a_folder_that_may_not_be_read_is_named_and_the_rest_is_listed() -> None:
    with TemporaryDirectory() as folder:  # the folders above it may be read by all
        corpus = Path(folder)
        corpus.chmod(0o755)
        (corpus / "open").mkdir()
        (corpus / "open" / "a.png").write_bytes(picture(1))
        (corpus / "closed").mkdir(mode=0)
        with nobody():
            listed = list_corpus(folder)
    assert listed.files["path"].to_pylist() == ["open/a.png"]
    assert reasons(listed) == {"closed": "folder that cannot be read: Permission denied; it was not opened"}


def test_other_files_are_counted_by_kind_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    others = ["b.nef", "c.NEF", ".DS_Store", "notes", "d.tar.zst", "e.svg", ".thumbs/f.png"]
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listed = list_corpus(str(tmp_path))
    kinds = {".nef": 2, ".tar.zst": 1, ".svg": 1, "hidden": 1, "hidden folders": 1, "without a suffix": 1}
    assert listed.others == kinds
    assert listed.ignored_count == 7
    (tmp_path / "a.png").unlink()
    with pytest.raises(CorpusError, match=r"holds no picture \(7 other files \(2 \.nef"):
        list_corpus(str(tmp_path))


def test_the_count_of_other_files_reads_well_and_old_manifests_have_none() -> None:
    assert others_text(0, {}) == ""
    assert others_text(1, {".nef": 1}) == "1 other file (1 .nef)"
    many = {f".{letter}": number for number, letter in enumerate("abcdefghij", 1)}
    assert others_text(55, many, 2) == "55 other files (10 .j, 9 .i, 36 of 8 more kinds)"
    counts = {"image_count": 1, "file_count": 1, "skipped_count": 0, "ignored_count": 3, "label_count": 0}
    old = CorpusEntry.model_validate({"root": "/x", **counts})
    assert (old.others_text, old.all_others) == ("3 other files", {"of kinds not noted": 3})
