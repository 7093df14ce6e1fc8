"""What people write, from the command line, a notebook and a client: one file beside the atlas."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import unitscope
from tests.unitscope.test_client import running
from unitscope.cli import app
from unitscope_schemas.errors import ConflictError, NotFoundError, UsageError
from unitscope_services.web.app import Settings


@pytest.fixture
def atlas(tiny_atlas: Path, tmp_path: Path) -> Path:
    """A copy of the tiny atlas, beside which nothing is written yet."""
    return Path(shutil.copytree(tiny_atlas, tmp_path / "tiny"))


@pytest.fixture
def address(atlas: Path) -> Iterator[str]:
    yield from running(Settings(atlases=(atlas,)))


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_commands_notebooks_and_clients_share_what_is_written(atlas: Path, address: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in atlas.rglob("*")}
    assert run("annotate", atlas, "_blocks.5:3", "--name", "stripes", "--tags", "edge", "--tags", "line").exit_code == 0
    opened, client = unitscope.open_atlas(str(atlas)), unitscope.Client(address)
    (path, *_) = opened.images(k=1)["path"].to_pylist()
    for questions in (opened, client):
        (row,) = questions.annotations(tag="edge").to_pylist()
        assert (row["subject"], row["name"], row["tags"]) == ("_blocks.5:3", "stripes", ["edge", "line"])
    assert client.annotate(path, note="odd").equals(opened.annotations(subject=path))
    assert client.collect("mine", subjects=["_blocks.5:3", path], note="both").equals(opened.collection("mine"))
    assert opened.collections().equals(client.collections())
    assert opened.collect("mine", remove=True).num_rows == 0
    with pytest.raises(NotFoundError):
        client.collection("mine")
    with pytest.raises(ConflictError):
        client.annotate("_blocks.5:3", name="x", revision=99)
    with pytest.raises(UsageError, match="did you mean name"):
        opened.annotate("_blocks.5:3", nmae="x")
    assert {path: path.stat().st_mtime_ns for path in atlas.rglob("*")} == before
    assert [path.name for path in atlas.parent.iterdir() if path.is_file()] == ["tiny.annotations.sqlite"]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_what_was_exported_is_imported_as_it_was(atlas: Path, tmp_path: Path, kind: str) -> None:
    opened = unitscope.open_atlas(str(atlas))
    opened.annotate("_blocks.5:3", name='a "name", with commas', note="two\nlines", tags=["a, b", "c"])
    opened.annotate("_blocks.5:1", tags=["plain"])
    opened.collect("mine", subjects=["_blocks.5:3", "_blocks.5:1"], note="both")
    written, items = tmp_path / f"written.{kind}", tmp_path / f"items.{kind}"
    written.write_text(run("annotations", atlas, "--format", kind).stdout)
    items.write_text(run("collections", atlas, "mine", "--format", kind).stdout)
    other = Path(shutil.copytree(atlas, tmp_path / "other"))
    assert run("annotations", other, "--import", written).exit_code == 0
    assert run("collect", other, "mine", "--import", items).exit_code == 0
    copy = unitscope.open_atlas(str(other))
    columns = ["subject", "name", "note", "tags", "author", "time"]
    by_subject = [("subject", "ascending")]
    assert copy.annotations().select(columns).sort_by(by_subject) == (
        opened.annotations().select(columns).sort_by(by_subject)
    )
    assert copy.collection("mine").equals(opened.collection("mine"))
    again = run("annotations", other, "--import", written)
    assert "written: 0 annotations" in again.stderr


@pytest.mark.parametrize(
    ("name", "content", "code", "said"),
    [
        ("a.json", '{"rows": [{"subject": "_blocks.5:3", "name": "x"}, {"subject": "nothing:1"}]}', 5, "nothing:1"),
        ("a.json", "{", 2, "no JSON"),
        ("a.json", '{"rows": 3}', 2, "no list of rows"),
        ("a.json", '[{"name": "x"}]', 2, "row 1"),
        ("a.csv", "subject,tags\n_blocks.5:3,[1", 2, "row 1"),
        ("a.txt", "", 2, "neither .json nor .csv"),
        ("a.csv", None, 5, "there is no file"),
    ],
)
def test_a_file_with_a_fault_is_refused_as_a_whole(
    atlas: Path, tmp_path: Path, name: str, content: str | None, code: int, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    result = run("annotations", atlas, "--import", tmp_path / name)
    assert getattr(result.exception, "exit_code", result.exit_code) == code
    assert said in str(result.exception)
    assert json.loads(run("annotations", atlas, "--json").stdout)["count"] == 0


def test_what_is_written_outlives_the_version_it_was_written_at(atlas: Path) -> None:
    opened = unitscope.open_atlas(str(atlas))
    (path,) = opened.images(k=1)["path"].to_pylist()
    opened.annotate("_blocks.5:3", name="stripes")
    opened.annotate(path, note="leaves soon")
    opened.collect("both", subjects=["_blocks.5:3", path])
    assert run("remove", atlas, path).exit_code == 0
    later = unitscope.open_atlas(str(atlas))
    assert later.annotations().equals(opened.annotations())
    assert later.collection("both").equals(opened.collection("both"))
    image = later.collection("both")["subject"].to_pylist()[1]
    assert later.collect("both", subjects=[image], remove=True)["subject"].to_pylist() == ["_blocks.5:3"]
    with pytest.raises(NotFoundError):
        later.annotate(path, note="gone")
