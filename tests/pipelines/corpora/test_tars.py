"""Entry 15: damaged, cut and odd tars: what can be read is read, and all else is named; GNU tar is the judge."""

import gzip
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.corpora import add
from unitscope_pipelines.corpora.listing import Listing, list_corpus
from unitscope_pipelines.storage.originals import Originals


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "BMP")
    return buffer.getvalue()


def write_tar(file: Path, members: list[tuple[str, bytes]], **options: int) -> Path:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w", **options) as tar:
        for name, data in members:
            add(tar, name, data)
    return file


def six(file: Path) -> tuple[bytearray, list[int], int]:
    """The bytes of a tar of six pictures, where its heads are, and where its last member ends."""
    write_tar(file, [(f"{number}.bmp", picture(number)) for number in range(6)])
    with tarfile.open(file) as tar:
        members = tar.getmembers()
    data = bytearray(file.read_bytes())
    return data, [member.offset for member in members], members[-1].offset_data + 1536


def contents(listed: Listing) -> dict[str, bytes]:
    originals = Originals(listed.root)
    rows = listed.files.read(["path", "address"]).to_pylist()
    return {row["path"].partition("/")[2]: originals.read(row["address"]) for row in rows}


def labels(listed: Listing) -> dict[str, str | None]:
    rows = listed.files.read(["path", "label"]).to_pylist()
    return {row["path"].partition("/")[2]: row["label"] for row in rows}


def reasons(listed: Listing) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in listed.refused.to_pylist()}


def spoil_head(number: int) -> Callable[[bytearray, list[int], int], bytes]:
    def spoiled(data: bytearray, heads: list[int], _end: int) -> bytes:
        data[heads[number]] ^= 0xFF
        return bytes(data)

    return spoiled


DAMAGES: dict[str, tuple[Callable[[bytearray, list[int], int], bytes], list[int], str]] = {
    "first head": (spoil_head(0), [0], "head of a member at byte 0 is damaged"),
    "third head": (spoil_head(2), [2], "head of a member at byte 4,096 is damaged"),
    "last head": (spoil_head(5), [5], "head of a member at byte 10,240 is damaged"),
    "no end marker": (lambda data, _heads, end: bytes(data[:end]), [], "ends without its end marker"),
    "cut within a member": (lambda data, heads, _end: bytes(data[: heads[5] + 700]), [5], "ends within this member"),
    "cut within a head": (lambda data, heads, _end: bytes(data[: heads[5] + 100]), [5], "head of a member at byte"),
    "bytes behind the end": (lambda data, _heads, _end: bytes(data) + b"hello", [], "behind its end marker"),
    "zeros in the middle": (
        lambda data, heads, _end: bytes(data[: heads[3]]) + bytes(512) + b"x" * 512 + bytes(data[heads[3] :]),
        [],
        "behind its end marker",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tar_is_named_and_what_can_be_read_of_it_is_listed(damage: str, tmp_path: Path) -> None:
    spoil, lost, reason = DAMAGES[damage]
    file = tmp_path / "corpus" / "shard.tar"
    file.parent.mkdir()
    file.write_bytes(spoil(*six(file)))
    write_tar(tmp_path / "corpus" / "whole.tar", [("w.bmp", picture(99))])
    listed = list_corpus(str(tmp_path / "corpus"))
    kept = {f"{number}.bmp": picture(number) for number in range(6) if number not in lost}
    assert contents(listed) == kept | {"w.bmp": picture(99)}
    (fault,) = reasons(listed).items()
    assert fault[0] in ("shard.tar", *(f"shard.tar/{number}.bmp" for number in lost))
    assert reason in fault[1]
    if damage.endswith("head") and not damage.startswith("cut"):
        judged = subprocess.run(["tar", "-tf", str(file)], capture_output=True, check=False)
        assert judged.returncode == 2, "GNU tar too finds it damaged"


@pytest.mark.parametrize("content", [b"", b"x" * 5000, bytes(10_240), b"x" * 100])
def test_a_file_that_is_no_tar_is_named_and_does_not_stop_the_run(content: bytes, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("a.bmp", picture(1))])
    (tmp_path / "b.tar").write_bytes(content)
    listed = list_corpus(str(tmp_path))
    assert contents(listed) == {"a.bmp": picture(1)}
    assert reasons(listed) == {"b.tar": "it is no tar: no member was found in it"}


def test_members_of_a_sample_need_not_follow_each_other(tmp_path: Path) -> None:
    members = [("x.bmp", picture(1)), ("y.bmp", picture(2)), ("x.cls", b"1"), ("y.cls", b"2"), ("z.bmp", picture(3))]
    write_tar(tmp_path / "a.tar", [("late.json", b'{"label": "early"}'), *members, ("late.bmp", picture(4))])
    assert labels(list_corpus(str(tmp_path))) == {"x.bmp": "1", "y.bmp": "2", "z.bmp": None, "late.bmp": "early"}


@pytest.mark.parametrize("gap", [[], [("other.bmp", picture(7))]])
def test_a_repeated_member_is_named_and_gives_its_label_to_none(gap: list[tuple[str, bytes]], tmp_path: Path) -> None:
    first, second = [("k.bmp", picture(1)), ("k.cls", b"1")], [("k.bmp", picture(2)), ("k.cls", b"2")]
    write_tar(tmp_path / "a.tar", [*first, *gap, *second])
    listed = list_corpus(str(tmp_path))
    assert labels(listed)["k.bmp"] == "1"
    assert contents(listed)["k.bmp"] == picture(1)
    assert set(reasons(listed)) == {"a.tar/k.bmp", "a.tar/k.cls"}


@pytest.mark.parametrize("suffix", ["TXT", "CLS", "Cls", "Json"])
def test_suffixes_of_any_case_describe(suffix: str, tmp_path: Path) -> None:
    text = b'{"label": "cat"}' if suffix == "Json" else b"cat"
    write_tar(tmp_path / "a.tar", [("K.BMP", picture(1)), (f"K.{suffix}", text)])
    assert labels(list_corpus(str(tmp_path))) == {"K.BMP": "cat"}


def test_links_among_members_have_the_bytes_and_labels_they_lead_to(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind, target in (
            ("set/early.bmp", tarfile.SYMTYPE, "../a.bmp"),
            ("hard.bmp", tarfile.LNKTYPE, "a.bmp"),
            ("hard.cls", tarfile.LNKTYPE, "a.cls"),
            ("twice.bmp", tarfile.SYMTYPE, "set/early.bmp"),
            ("lost.bmp", tarfile.SYMTYPE, "/outside.bmp"),
            ("round.bmp", tarfile.SYMTYPE, "round.bmp"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
        add(tar, "a.bmp", picture(1))
        add(tar, "a.cls", b"one")
    listed = list_corpus(str(tmp_path))
    linked = ["a.bmp", "set/early.bmp", "hard.bmp", "twice.bmp"]
    assert contents(listed) == dict.fromkeys(linked, picture(1))
    assert labels(listed) == {"a.bmp": "one", "set/early.bmp": "set", "hard.bmp": "one", "twice.bmp": None}
    assert {path: reason.split(" to ")[0] for path, reason in reasons(listed).items()} == {
        "a.tar/lost.bmp": "a link",
        "a.tar/round.bmp": "a link",
    }


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_that_are_no_text_are_read(form: int, tmp_path: Path) -> None:
    names = ["long/" * 60 + "a.bmp", "caf\udce9.bmp", "ünï.bmp", "./dot.bmp"]
    members = [(name, picture(number)) for number, name in enumerate(names)]
    write_tar(tmp_path / "a.tar", members, format=form)
    shown = ["long/" * 60 + "a.bmp", r"caf\xe9.bmp", "ünï.bmp", "dot.bmp"]
    listed = list_corpus(str(tmp_path))
    assert contents(listed) == {name: picture(number) for number, name in enumerate(shown)}
    assert reasons(listed) == {}


def test_a_bad_head_behind_a_long_name_is_named(tmp_path: Path) -> None:
    names = ["a.bmp", "long/" * 60 + "b.bmp", "c.bmp"]
    file = write_tar(tmp_path / "a.tar", [(name, picture(1)) for name in names], format=tarfile.GNU_FORMAT)
    with tarfile.open(file) as tar:
        data, bad = bytearray(file.read_bytes()), tar.getmembers()[1].offset_data - 512
    data[bad] ^= 0xFF
    file.write_bytes(data)
    listed = list_corpus(str(tmp_path))
    assert set(contents(listed)) == {"a.bmp", "c.bmp"}
    assert "is damaged" in reasons(listed)["a.tar"]


def test_a_global_header_as_git_archive_writes_it_is_no_damage(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "abc"}) as tar:
        add(tar, "a.bmp", picture(1))
    listed = list_corpus(str(tmp_path))
    assert (contents(listed), reasons(listed)) == ({"a.bmp": picture(1)}, {})


def test_sparse_members_and_devices_are_named(tmp_path: Path) -> None:
    with (tmp_path / "s.bmp").open("wb") as sparse:
        sparse.write(picture(1))
        sparse.seek(1 << 20)
        sparse.write(b"end")
    (tmp_path / "corpus").mkdir()
    file = tmp_path / "corpus" / "a.tar"
    packed = subprocess.run(["tar", "--sparse", "-cf", str(file), "-C", str(tmp_path), "s.bmp"], check=False)
    assert packed.returncode == 0
    with tarfile.open(file, "a") as tar:
        pipe = tarfile.TarInfo("pipe.bmp")
        pipe.type = tarfile.FIFOTYPE
        tar.addfile(pipe)
        add(tar, "b.bmp", picture(2))
    listed = list_corpus(str(tmp_path / "corpus"))
    assert contents(listed) == {"b.bmp": picture(2)}
    assert {path: reason[:8] for path, reason in reasons(listed).items()} == {
        "a.tar/s.bmp": "a sparse",
        "a.tar/pipe.bmp": "a device",
    }


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_a_compressed_tar_is_read_and_its_cost_is_said(suffix: str, tmp_path: Path) -> None:
    mode = {"tgz": "gz"}.get(suffix, suffix.removeprefix("tar."))
    with tarfile.open(tmp_path / f"a.{suffix}", f"w:{mode}") as tar:  # type: ignore[call-overload]
        for number in range(4):
            add(tar, f"{number}.bmp", picture(number))
            add(tar, f"{number}.cls", str(number).encode())
    listed = list_corpus(str(tmp_path))
    assert contents(listed) == {f"{number}.bmp": picture(number) for number in range(4)}
    assert labels(listed) == {f"{number}.bmp": str(number) for number in range(4)}
    assert "1 compressed tar of" in listed.notes[0]
    assert "unpacks" in listed.notes[0]


def test_a_cut_compressed_tar_is_named_and_its_beginning_is_read(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "a.tar", [(f"{number}.bmp", picture(number)) for number in range(6)])
    packed = gzip.compress(plain.read_bytes(), compresslevel=0)
    plain.unlink()
    (tmp_path / "a.tar.gz").write_bytes(packed[:8000])
    listed = list_corpus(str(tmp_path))
    read = contents(listed)
    assert 2 <= len(read) < 6
    assert read == {f"{number}.bmp": picture(number) for number in range(len(read))}
    assert "compression is damaged" in "; ".join(reasons(listed).values())


def test_a_member_that_is_no_json_costs_its_metadata_alone(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("k.bmp", picture(1)), ("k.json", b"{no"), ("k.cls", b"1"), ("k.seg.png", b"")])
    write_tar(tmp_path / "b.tar", [("k.bmp", picture(2)), ("k.pth", b"")])
    listed = list_corpus(str(tmp_path))
    assert set(listed.files["label"].to_pylist()) == {"1", None}
    assert "no JSON" in reasons(listed)["a.tar/k.json"]
    assert listed.others == {".pth": 1}
    assert shutil.which("tar"), "GNU tar is the judge of damage"
