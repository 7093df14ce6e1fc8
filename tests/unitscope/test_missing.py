"""Entries 12 and 22 at the command line: missing pictures end with exit code 5, and odd names are shown as they are."""

import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unitscope.cli import app
from unitscope.commands.output import show_rows

UNIT = "_blocks.5:3"


@pytest.fixture
def torn(tiny_corpus: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "torn"
    shutil.copytree(tiny_corpus, folder)
    for path in sorted((folder / "stripes").glob("*.jpg"))[:10]:
        path.unlink()
    return folder


@pytest.mark.parametrize("what", ["crops", "sheet", "export"])
def test_missing_pictures_are_said_and_end_with_5_and_all_is_written(
    what: str, torn: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    out = tmp_path / ("sheet.png" if what == "sheet" else "out")
    if what == "export":
        command = ["export", str(tiny_atlas), "--format", "html", "--units", UNIT, "--out", str(out), "-k", "30"]
    else:
        command = ["top", str(tiny_atlas), UNIT, "-k", "30", f"--{what}", str(out)]
    whole = CliRunner().invoke(app, command)
    assert whole.exit_code == 0, whole.output
    files = {path.name.replace("-missing", "") for path in out.rglob("*")}
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    partly = CliRunner().invoke(app, [*command, "--corpus", str(torn)])
    assert partly.exit_code == 5, partly.output
    assert "a blank stands in" in partly.stderr
    assert "is gone or was edited" in partly.stderr
    assert {path.name.replace("-missing", "") for path in out.rglob("*")} == files
    if what == "crops":
        assert 0 < len(list(out.glob("*-missing.png"))) <= 10


@dataclass
class Named:
    """A row with a name."""

    path: str


@pytest.mark.parametrize(
    "name", ["[red]a.jpg", "[/]b.jpg", "line\nbreak.jpg", "esc\x1b[31m.jpg", "a\u202egpj.exe", "nul\0.jpg"]
)
def test_a_table_shows_any_name_on_one_line_and_steers_no_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    show_rows([Named(name)], Named, "table", None)
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].strip() == "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
