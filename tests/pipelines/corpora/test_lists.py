"""Lists: what they say comes through as it was written, or the line at fault is named (entry 16)."""

import json
from pathlib import Path
from typing import Any

import pytest

from unitscope_pipelines.corpora.columns import ColumnChoice
from unitscope_pipelines.corpora.listing import Listing, list_corpus
from unitscope_schemas.errors import CorpusError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", " c.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def listed(folder: Path, name: str, content: str | bytes, **choice: str) -> Listing:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list_corpus(str(folder / name), choice=ColumnChoice(**choice))


def metadata(listing: Listing) -> list[dict[str, Any]]:
    return [json.loads(text or "{}") for text in listing.files["metadata"].to_pylist()]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ('"2020-01-02"', "2020-01-02"),
        ('"2020-01-02T10:00:00Z"', "2020-01-02T10:00:00Z"),
        ('"00123"', "00123"),
        ('"1.10"', "1.10"),
        ('"true"', "true"),
        ('""', ""),
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", "9223372036854775808"),
        ("18446744073709551617", "18446744073709551617"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("1.10", 1.1),
        ("0.12345678901234567890", "0.12345678901234567890"),
        ("1e400", "1e400"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ('{"a":[1,{"b":null}]}', {"a": [1, {"b": None}]}),
        ('["x",2]', ["x", 2]),
        ("9" * 5000, "9" * 5000),
        ('"\\ud800"', "\\ud800"),
    ],
)
def test_lists_json_values_come_through_as_written_or_stay_text(written: str, kept: object, folder: Path) -> None:
    (said,) = metadata(listed(folder, "l.jsonl", f'{{"path":"a.jpg","x":{written}}}\n'))
    assert said == {"x": kept}
    assert type(said["x"]) is type(kept)


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (("00123", "12345"), ["00123", "12345"]),
        (("1.10", "2.5"), ["1.10", "2.5"]),
        (("1e5", "3"), ["1e5", "3"]),
        (("+1", "2"), ["+1", "2"]),
        (("0x10", "5"), ["0x10", "5"]),
        (("-0", "5"), ["-0", "5"]),
        (("12", "9223372036854775808"), ["12", "9223372036854775808"]),
        (("12a4", "5678"), ["12a4", "5678"]),
        (("2020-01-02", "2020"), ["2020-01-02", "2020"]),
        (("2012", "unknown"), [2012, "unknown"]),
        (("0.5", "NaN"), [0.5, "NaN"]),
        (("12", "2.5"), [12, 2.5]),
        (("true", "false"), [True, False]),
        (("true", "TRUE"), ["true", "TRUE"]),
        (("-9223372036854775808", "1"), [-9223372036854775808, 1]),
        (('"two\nlines, ""q"""', "x"), ['two\nlines, "q"', "x"]),
        ((" x", "y "), [" x", "y "]),
    ],
)
def test_lists_columns_of_numbers_are_numbers_only_where_all_survive(
    cells: tuple[str, str], kept: list[object], folder: Path
) -> None:
    said = metadata(listed(folder, "l.csv", f"path,x\na.jpg,{cells[0]}\nb.jpg,{cells[1]}\n"))
    assert [each["x"] for each in said] == kept
    assert [type(each["x"]) for each in said] == [type(value) for value in kept]


def test_lists_tell_an_empty_cell_from_none_where_they_can(folder: Path) -> None:
    assert metadata(listed(folder, "l.csv", "path,x,y\na.jpg,,1\nb.jpg,2,\n")) == [{"y": 1}, {"x": 2}]
    lines = '{"path":"a.jpg","x":"","y":null}\n{"path":"b.jpg"}\n'
    assert metadata(listed(folder, "l.jsonl", lines)) == [{"x": ""}, {}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", "path,label\na.jpg,one\nb.jpg,two\n"),
        ("l.csv", b"\xef\xbb\xbfpath,label\r\na.jpg,one\r\n\r\nb.jpg,two\r\n"),
        ("l.csv", "path,label\ra.jpg,one\rb.jpg,two"),
        ("l.csv", "path,label\na.jpg,one\nb.jpg,two\n".encode("utf-16")),
        ("l.csv", "path;label\na.jpg;one\nb.jpg;two\n"),
        ("l.csv", "path\tlabel\na.jpg\tone\nb.jpg\ttwo\n"),
        ("l.tsv", "path\tlabel\na.jpg\tone\nb.jpg\ttwo\n"),
        ("l.csv", 'path, label\na.jpg, one\n"b.jpg", "two"\n'),
        ("l.csv", "path,label\na.jpg, one\nb.jpg,two \n"),
        ("l.csv", "path,label,label\na.jpg,one,\nb.jpg,two,two\n"),
        ("l.jsonl", b'\xef\xbb\xbf{"path":"a.jpg","label":"one"}\r\n{"path":"b.jpg","label":"two"}'),
        ("l.jsonl", '{"path":"a.jpg","label":"one","x":1}\n{"path":"b.jpg","label":["two"],"x":"text"}\n'),
        ("l.csv", "Filename,Class\na.jpg,one\nb.jpg,two\n"),
        ("l.jsonl", '{"file_name":"a.jpg","category":"one"}\n{"file_name":"b.jpg","category":"two"}\n'),
    ],
)
def test_lists_as_people_have_them_are_read(name: str, content: str | bytes, folder: Path) -> None:
    files = listed(folder, name, content).files
    assert files["path"].to_pylist() == ["a.jpg", "b.jpg"]
    assert files["labels"].to_pylist() == [["one"], ["two"]]
    assert all(files["file_bytes"].to_numpy() > 0)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa.jpg\nb.jpg\n", b"a.jpg\rb.jpg", b" a.jpg\r\nb.jpg \r\n"])
def test_lists_of_lines_are_read_with_marks_and_blanks(content: bytes, folder: Path) -> None:
    assert listed(folder, "l.txt", content).files["path"].to_pylist() == ["a.jpg", "b.jpg"]


def test_lists_name_files_with_blanks_around_their_names(folder: Path) -> None:
    assert listed(folder, "l.txt", " c.jpg\na.jpg").files["path"].to_pylist() == [" c.jpg", "a.jpg"]


@pytest.mark.parametrize(
    ("choice", "label"), [({"path": "where", "label": "what"}, "one"), ({"path": "where", "label": "of"}, "many")]
)
def test_lists_columns_are_those_that_are_named_and_the_note_says_so(
    choice: dict[str, str], label: str, folder: Path
) -> None:
    found = listed(folder, "l.csv", "where,what,of,path,metadata\na.jpg,one,many,5,6\n", **choice)
    assert found.files["path"].to_pylist() == ["a.jpg"]
    assert found.files["label"].to_pylist() == [label]
    assert metadata(found)[0] == {"what": "one", "of": "many", "path": 5, "metadata": 6}
    other = listed(folder, "l.csv", "path,label,kind\na.jpg,one,many\n", label="kind")
    assert (other.files["labels"].to_pylist(), metadata(other)) == ([["many"]], [{"label": "one", "kind": "many"}])
    assert found.notes == (f"list 'l.csv': paths are of column 'where', labels are of column {choice['label']!r}",)


@pytest.mark.parametrize(
    ("name", "content", "choice", "said"),
    [
        ("l.csv", "path,x\na.jpg,1,2\n", {}, "has 3 values in line 2, and 2 columns"),
        ("l.csv", 'path,x\na.jpg,"open\n', {}, "broken in line 2"),
        ("l.csv", "path,year,year\na.jpg,1,2\n", {}, "several columns of the name 'year'"),
        ("l.csv", "a.jpg,cat\n", {}, "has a.jpg, cat: name the column of paths by --path-column"),
        ("l.csv", "path,x\na.jpg,1\n", {"label": "y"}, "has no column 'y'; it has path, x"),
        ("l.csv", "path,x\na.jpg,1\n".encode("utf-16-le"), {}, "UTF-16 without its mark"),
        ("l.csv", "", {}, "is empty"),
        ("l.csv", "path,x\n,1\n", {}, "line 2 of list 'l.csv' has no path"),
        ("l.jsonl", '{"path":"a.jpg"}\n{"path":5}\n', {}, "line 2 of list 'l.jsonl' has no path"),
        ("l.jsonl", '{"path":"a.jpg","x":1,"x":2}\n', {}, "two values of the name 'x'"),
        ("l.jsonl", '{"path":"a.jpg"}\n\n[1]\n', {}, "no object in line 3"),
        ("l.jsonl", '{"path":"a.jpg"\n', {}, "broken in line 1"),
        ("l.jsonl", '{"path":"a.jpg","x":' + "[" * 100_000 + "\n", {}, "nested too deeply"),
    ],
)
def test_lists_at_fault_are_refused_with_the_line(
    name: str, content: str | bytes, choice: dict[str, str], said: str, folder: Path
) -> None:
    with pytest.raises(CorpusError, match=said):
        listed(folder, name, content, **choice)


def test_lists_in_other_encodings_say_so(folder: Path) -> None:
    found = listed(folder, "l.csv", "path,label\na.jpg,café\n".encode("latin-1"))
    assert found.files["label"].to_pylist() == ["caf\\xe9"]
    assert "no UTF-8" in found.notes[0]


@pytest.mark.parametrize("option", ["path", "label", "image"])
def test_lists_columns_that_a_corpus_does_not_have_are_refused(option: str, folder: Path) -> None:
    with pytest.raises(CorpusError, match=f"--{option}-column 'x'"):
        list_corpus(str(folder), choice=ColumnChoice(**{option: "x"}))


def test_lists_rows_of_one_picture_are_counted_and_their_labels_joined(folder: Path) -> None:
    rows = "path,label,year\na.jpg,cat,1\na.jpg,dog,1\nb.jpg,cat,1\nb.jpg,cat,1\nb.jpg,,\n"
    found = listed(folder, "l.csv", rows)
    assert found.repeated_count == 3
    assert found.files["labels"].to_pylist() == [["cat", "dog"], ["cat"]]
    assert found.files["label"].to_pylist() == ["cat", "cat"]
    first, second = found.files["statements"].to_pylist()
    assert [each["labels"] for each in json.loads(first)] == [["cat"], ["dog"]]
    assert [each["metadata"] for each in json.loads(first)] == [{"year": 1}, {"year": 1}]
    assert second is None


def described(folder: Path) -> tuple[dict[str, tuple[list[str], str | None]], tuple[str, ...]]:
    found = list_corpus(str(folder))
    rows = found.files.read(["path", "labels", "metadata"]).to_pylist()
    return {row["path"]: (row["labels"], row["metadata"]) for row in rows}, found.notes


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_lists_beside_pictures_describe_them(suffix: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    (tmp_path / "train").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "train" / name).write_bytes(name.encode())
    rows = [{"file_name": name, "label": label} for name, label in (("a.jpg", "cat"), ("b.jpg", "dog"), ("z.jpg", "x"))]
    target = tmp_path / "train" / f"metadata.{suffix}"
    if suffix == "jsonl":
        target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write = pacsv.write_csv if suffix == "csv" else pq.write_table
        write(pa.Table.from_pylist(rows), target)
    found, notes = described(tmp_path)
    assert found == {"train/a.jpg": (["cat"], None), "train/b.jpg": (["dog"], None), "train/c.jpg": (["train"], None)}
    assert f"train/metadata.{suffix} names 1 pictures that are not there, for example train/z.jpg" in notes
    assert f"train/metadata.{suffix} does not name 1 of the pictures, for example train/c.jpg" in notes


def test_lists_beside_pictures_without_labels_leave_the_folders_name(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.jpg").write_bytes(b"a")
    (tmp_path / "metadata.jsonl").write_text('{"file_name":"cat/a.jpg","year":2001}')
    (tmp_path / "cat" / "metadata.csv").write_text("file_name,year\na.jpg,2002\n")
    found, _ = described(tmp_path)
    assert found == {"cat/a.jpg": (["cat"], '{"year":2002}')}, "the nearest list stands, and the other is kept"
    (said,) = list_corpus(str(tmp_path)).files["statements"].to_pylist()
    assert [each["metadata"]["year"] for each in json.loads(said)] == [2002, 2001]


def test_lists_beside_pictures_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "metadata.csv").write_text("x,y\n1,2\n")
    assert described(tmp_path)[1] == (
        "metadata.csv names no picture: it has no column of paths, such as file_name; it is not read",
    )
    (tmp_path / "metadata.csv").write_text('file_name,y\na.jpg,"open\n')
    with pytest.raises(CorpusError, match=r"metadata\.csv' is broken in line 2"):
        list_corpus(str(tmp_path))
