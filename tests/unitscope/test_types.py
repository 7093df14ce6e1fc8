"""mypy sees every argument and every answer of the public API."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from unitscope.client import Client
from unitscope.opened_atlas import OpenedAtlas

ROOT = Path(__file__).parents[2]
READ = Path(__file__).with_name("typed_api.py")
SETTINGS = f"""
[mypy]
strict = True
plugins = pydantic.mypy
mypy_path = {":".join(str(ROOT / folder) for folder in (".", "schemas", "pipelines", "services"))}
follow_imports = silent
[pydantic-mypy]
init_typed = True
init_forbid_extra = True
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What mypy says about each line, with Arrow's stubs, which it leaves out where it checks the product."""
    folder = tmp_path_factory.mktemp("types")
    (folder / "mypy.ini").write_text(SETTINGS)
    words = [sys.executable, "-m", "mypy", "--config-file", folder / "mypy.ini", "--cache-dir", folder / "cache", READ]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, cwd=folder)
    found = re.findall(r"typed_api\.py:(\d+): (.*)", done.stdout)
    assert found, done.stdout + done.stderr
    lines: dict[int, str] = {}
    for number, text in found:
        lines[int(number)] = f"{lines.get(int(number), '')}{text}\n"
    return lines


def revealed(said: dict[int, str]) -> dict[str, str]:
    """What mypy reveals of each name."""
    return {
        match[1]: said[number]
        for number, line in enumerate(READ.read_text().splitlines(), 1)
        if (match := re.fullmatch(r"reveal_type\((.*)\)", line))
    }


def test_no_argument_and_no_answer_is_of_any_type(said: dict[int, str]) -> None:
    for name, text in revealed(said).items():
        assert not re.search(r"\bAny\b", text), f"{name}: {text}"


def test_every_public_name_is_looked_at(said: dict[int, str]) -> None:
    named = revealed(said)
    for variable, kind in (("atlas", OpenedAtlas), ("client", Client)):
        public = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
        assert {f"{variable}.{name}" for name in public} <= named.keys()


def test_the_arguments_of_top_are_spelled_out(said: dict[int, str]) -> None:
    for name in ("atlas.top", "client.top"):
        text = revealed(said)[name]
        for part in (
            "k: int =",
            "label: str | None =",
            "quantile: tuple[float, float] | str | None =",
            "duplicates: Literal['collapse'] | Literal['expand'] =",
            "where: tuple[str, ...] =",
        ):
            assert part in text, (name, part, text)
        assert text.rstrip().endswith('Table"')


def test_wrong_arguments_are_errors(said: dict[int, str]) -> None:
    for number, line in enumerate(READ.read_text().splitlines(), 1):
        expected = line.partition("# error: ")[2]
        if expected:
            assert expected in said.get(number, ""), line
        else:
            assert "error:" not in said.get(number, ""), said[number]
