"""The file of annotations: what was acknowledged stays, many write at once, and a file of another is not believed."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unitscope_schemas.answers.annotations import AnnotateQuestion, CollectQuestion
from unitscope_schemas.errors import AtlasError, ConflictError, NotFoundError, ReadOnlyError, StorageError, UsageError
from unitscope_services.annotations import annotation_file
from unitscope_services.annotations.annotation_file import AnnotationFile
from unitscope_services.annotations.annotations import Author, annotate, annotations_of
from unitscope_services.annotations.collections import collect, collection_named, collections_of

ANNA = Author("anna", "v1")
WEIGHTS = "a" * 64

WRITER = """
import sys
from pathlib import Path
from unitscope_schemas.answers.annotations import AnnotateQuestion, CollectQuestion
from unitscope_services.annotations.annotation_file import AnnotationFile
from unitscope_services.annotations.annotations import Author, annotate
from unitscope_services.annotations.collections import collect
path, who, count = sys.argv[1:]
file = AnnotationFile(Path(path), "atlas", "a" * 64)
for number in range(int(count)):
    annotate(file, f"layer:{number}", AnnotateQuestion(name=f"{who} {number}"), Author(who, "v1"))
    collect(file, "all", CollectQuestion(subjects=(f"{who}:{number}",)), Author(who, "v1"))
    print(number, flush=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> AnnotationFile:
    return AnnotationFile(tmp_path / "atlas.annotations.sqlite", "atlas", WEIGHTS)


def write(file: AnnotationFile, subject: str = "layer:1", **fields: object) -> None:
    annotate(file, subject, AnnotateQuestion.model_validate(fields), ANNA)


def test_nothing_is_made_until_something_is_written(file: AnnotationFile) -> None:
    assert annotations_of(file) == []
    assert collections_of(file) == []
    assert file.state == ""
    assert file.path is not None and not file.path.exists()


def test_what_is_not_given_stays_and_empty_takes_away(file: AnnotationFile) -> None:
    write(file, name="  a   name ", note="seen\ntwice", tags=("b", "a", "a"))
    write(file, note="")
    (row,) = annotations_of(file)
    assert (row.name, row.note, row.tags, row.author, row.version) == ("a name", "", ["a", "b"], "anna", "v1")
    write(file, name="", tags=("",))
    assert annotations_of(file) == []
    with pytest.raises(UsageError, match="nothing is written"):
        write(file)


def test_the_history_stays_in_the_file(file: AnnotationFile) -> None:
    write(file, name="first")
    write(file, name="second")
    write(file, remove=True)
    assert file.path is not None
    with sqlite3.connect(file.path) as connection:
        rows = connection.execute("SELECT name, removed FROM annotation ORDER BY revision").fetchall()
    assert rows == [("first", 0), ("second", 0), ("second", 1)]


def test_who_has_not_seen_the_last_change_is_refused(file: AnnotationFile) -> None:
    write(file, name="first", revision=0)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        write(file, name="other", revision=0)
    (row,) = annotations_of(file)
    write(file, name="second", revision=row.revision)
    assert annotations_of(file)[0].name == "second"
    collect(file, "all", CollectQuestion(subjects=("layer:1",)), ANNA)
    with pytest.raises(ConflictError):
        collect(file, "all", CollectQuestion(subjects=("layer:2",), revision=0), ANNA)


def test_the_state_changes_with_every_writing(file: AnnotationFile) -> None:
    states = [file.state]
    for number in range(3):
        write(file, name=str(number))
        states.append(file.state)
    collect(file, "all", CollectQuestion(subjects=("layer:1",)), ANNA)
    states.append(file.state)
    assert len(set(states)) == 5


def test_a_collection_keeps_its_order_and_notes(file: AnnotationFile) -> None:
    collect(file, "all", CollectQuestion(subjects=("l:1", "l:2"), note="early", about="some"), ANNA)
    collect(file, "all", CollectQuestion(subjects=("l:3", "l:1")), ANNA)
    found = collection_named(file, "all")
    assert [(item.subject, item.note) for item in found.rows] == [("l:1", "early"), ("l:2", "early"), ("l:3", "")]
    assert (found.about, found.revision) == ("some", 2)
    collect(file, "all", CollectQuestion(subjects=("l:3", "l:1"), arrange=True), ANNA)
    assert [item.subject for item in collection_named(file, "all").rows] == ["l:3", "l:1"]
    collect(file, "all", CollectQuestion(subjects=("l:3",), remove=True), ANNA)
    assert [row.item_count for row in collections_of(file)] == [1]
    assert [row.name for row in collections_of(file, "l:1")] == ["all"]
    assert collections_of(file, "l:2") == []
    with pytest.raises(NotFoundError, match="does not hold l:9"):
        collect(file, "all", CollectQuestion(subjects=("l:9",), remove=True), ANNA)
    assert collect(file, "all", CollectQuestion(remove=True), ANNA) is None
    with pytest.raises(NotFoundError, match="none yet"):
        collection_named(file, "all")


def test_twenty_writers_at_once_lose_nothing(file: AnnotationFile) -> None:
    def work(number: int) -> None:
        for turn in range(5):
            write(file, f"layer:{number}", name=f"{turn}")
            write(file, "layer:shared", tags=(f"{number}",))
            collect(file, "all", CollectQuestion(subjects=(f"layer:{number}-{turn}",)), ANNA)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(20)))
    rows = {row.subject: row.name for row in annotations_of(file)}
    assert {rows[f"layer:{number}"] for number in range(20)} == {"4"}
    assert len(collection_named(file, "all").rows) == 100
    assert collection_named(file, "all").revision == 100


def test_what_was_acknowledged_outlives_a_kill(file: AnnotationFile) -> None:
    command = [sys.executable, "-c", WRITER, str(file.path), "eve", "100000"]
    for number in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(5 + number):
                acknowledged = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
        names = {row.subject: row.name for row in annotations_of(file)}
        items = {item.subject for item in collection_named(file, "all").rows}
        for known in range(acknowledged + 1):
            assert names[f"layer:{known}"] == f"eve {known}"
            assert f"eve:{known}" in items


def test_several_processes_write_one_file(file: AnnotationFile) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file.path), who, "10"], stdout=subprocess.DEVNULL)
        for who in ("anna", "bob", "carl")
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(collection_named(file, "all").rows) == 30


def test_a_file_has_a_bound_up_to_which_it_is_written_and_read(
    file: AnnotationFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotation_file, "_MOST_BYTES", 120_000)
    with pytest.raises(StorageError, match="holds at most 120,000 bytes"):
        for number in range(30):
            write(file, f"layer:{number}", note="x" * 9_000)
    assert file.path is not None and file.path.stat().st_size <= 120_000
    rows = annotations_of(file)
    assert 3 < len(rows) < 14
    monkeypatch.setattr(annotation_file, "_MOST_BYTES", 60_000)
    with pytest.raises(AtlasError, match="larger than"):
        annotations_of(file)


def test_annotations_of_another_network_are_not_shown(file: AnnotationFile) -> None:
    write(file, name="mine")
    other = AnnotationFile(file.path, "atlas", "b" * 64)
    for ask in (lambda: annotations_of(other), lambda: write(other, name="yours")):
        with pytest.raises(AtlasError, match="another network"):
            ask()
    assert [row.name for row in annotations_of(file)] == ["mine"]


def no_database(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to be one" * 100)


def other_application(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE annotation (subject TEXT)")


def trigger(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TRIGGER spy AFTER INSERT ON annotation BEGIN DELETE FROM annotation; END")


def view_in_place_of_a_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE item")
        connection.execute("CREATE VIEW item AS SELECT * FROM annotation")


def later_format(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")


def flipped_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = bytes(255 - byte for byte in content[4096:8192])
    path.write_bytes(content)


def tags_that_are_none(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE annotation SET tags = '{\"a\": 1}'")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path) -> None:
    other = path.with_name("elsewhere")
    shutil.move(path, other)
    path.symlink_to(other)


@pytest.mark.parametrize(
    "spoil",
    [
        *(no_database, other_application, trigger, view_in_place_of_a_table, later_format, flipped_bytes),
        *(tags_that_are_none, pipe, folder, link),
    ],
)
def test_a_file_that_is_not_ours_is_refused_by_name(file: AnnotationFile, spoil: Callable[[Path], None]) -> None:
    write(file, name="mine")
    assert file.path is not None
    spoil(file.path)
    for ask in (lambda: annotations_of(file), lambda: write(file, name="yours")):
        with pytest.raises(AtlasError) as raised:
            ask()
        assert "annotation" in str(raised.value)
        assert str(file.path.parent) not in str(raised.value)


def test_without_a_place_nothing_is_there_and_nothing_can_be_written(tmp_path: Path) -> None:
    remote = AnnotationFile.beside("s3://bucket/atlas", None, "atlas", WEIGHTS)
    nowhere = AnnotationFile(Path("/proc/none/atlas.annotations.sqlite"), "atlas", WEIGHTS)
    for file in (remote, nowhere):
        assert annotations_of(file) == []
        with pytest.raises(ReadOnlyError, match="--annotations"):
            write(file, name="mine")
        assert not file.is_writable
    assert AnnotationFile.beside("s3://bucket/atlas", tmp_path, "atlas", WEIGHTS).is_writable
    assert AnnotationFile.beside(tmp_path / "atlas", None, "atlas", WEIGHTS).path == (
        tmp_path.resolve() / "atlas.annotations.sqlite"
    )
