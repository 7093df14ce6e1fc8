"""Every command and block of the README, run in its order beside the demo's atlas; what it shows is what is printed."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import duckdb
import pytest
import typer

from tests.docs.commands import Command, Ended, alike, blocks, commands, run
from unitscope.cli import app

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]
COMMANDS = list(commands(README))
NOT_RUN = {
    "pip install .": "takes packages from the network; tests/test_packaging.py installs what it would",
    "make demo": "runs `unitscope demo`, which is run here",
    ". .venv/bin/activate": "only tells a shell where the program is",
    "make .venv/ready && export PATH=": "makes the environment in which this test runs",
    "export RAY_AUTH_MODE=token": "of a cluster, as tests/pipelines/test_cluster_doors.py starts one",
    "ray ": "of several machines, as tests/pipelines/test_cluster_nodes.py starts them",
    "unitscope index /shared/": "on several machines, as tests/pipelines/test_cluster_nodes.py starts them",
    "unitscope top /shared/": "on several machines; the same command is run on one",
    "unitscope index ~/Pictures --atlas h --model hf:": "wants a folder of Transformers, as "
    "tests/pipelines/vision/models/test_hugging_face.py writes some",
}
"""Beginnings of commands that are not run here, each with the reason why."""
SHORTER = {
    "unitscope sheet": ("--layer-count 1 --units-per-layer 1 --no-optimised", "all of it takes minutes"),
    "unitscope index ~/Pictures --atlas a": ("--weights random:0 --limit 2", "its weights would be downloaded"),
    "unitscope index ~/Pictures --atlas b": ("--weights random:0 --limit 2", "its weights would be downloaded"),
}
"""Beginnings of commands that are run with further flags, and the reason why."""
VERSION = "VERSION"
"""Stands in the README for the name of a version, which is another one wherever the demo is made."""
SERVED = "localhost:8000"
"""Where the README's server is; a test's has a port of its own."""
PROGRAMS = {"unitscope", "curl"}
NETWORK = """
import torch

def build():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3))
"""
LATENTS = """
import torch

def build():
    linear = torch.nn.Linear(80, 8, bias=False)
    torch.nn.init.eye_(linear.weight)  # every process must build the same
    return torch.nn.Sequential(linear, torch.nn.ReLU())
"""


def reason_not_to_run(text: str) -> str | None:
    return next((reason for beginning, reason in NOT_RUN.items() if text.startswith(beginning)), None)


def test_every_block_is_run_or_is_no_command() -> None:
    """Languages say what a block is: `text` is a drawing; all else is run below."""
    assert {block.language for block in blocks(README)} <= {"sh", "console", "python", "sql", "text"}
    unknown = [
        command.text for command in COMMANDS if not (command.program in PROGRAMS or reason_not_to_run(command.text))
    ]
    assert unknown == []


def test_every_reason_is_of_a_command_that_is_there() -> None:
    for beginning in (*NOT_RUN, *SHORTER):
        assert [command for command in COMMANDS if command.text.startswith(beginning)], beginning


def mentions() -> Iterator[Any]:
    """Every `unitscope …` that a page names within a sentence or a block."""
    for page in PAGES:
        inline = re.findall(r"`unitscope ([a-z][^`]*)`", page.read_text())
        whole = [
            command.text.removeprefix("unitscope ") for command in commands(page) if command.program == "unitscope"
        ]
        for text in dict.fromkeys([*inline, *whole]):
            yield pytest.param(text, id=f"{page.name}: {text[:40]}")


@pytest.mark.parametrize("text", [*mentions()])
def test_every_command_that_a_page_names_exists_with_its_options(text: str) -> None:
    command: Any = typer.main.get_command(app)
    words = text.replace("'", "").split()
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, words[0]
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    named = [word.partition("=")[0] for word in words if re.match(r"--[a-z]|-[a-z]$", word)]
    assert [word for word in named if word not in options | {"--help", "-h"}] == []


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder in which the demo was made, with files of their own, and their home with some pictures.

    A demo that stands in the checkout is copied; else, as in a clean clone, the README's first command makes it.
    """
    folder = tmp_path_factory.mktemp("readme")
    if (ROOT / "demo" / "atlas" / "manifest.json").exists():
        shutil.copytree(ROOT / "demo", folder / "demo")
    (folder / "nets").mkdir()
    (folder / "nets" / "mine.py").write_text(NETWORK)
    (folder / "sae.py").write_text(LATENTS)
    return folder


@pytest.fixture(scope="module")
def environment(desk: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(desk / "home"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture(scope="module")
def made(desk: Path, environment: dict[str, str]) -> Ended | None:
    """What the README's first command said; nothing where a demo was there already."""
    ended = None
    if not (desk / "demo").exists():
        plain = {name: value for name, value in environment.items() if name != "UNITSCOPE_FIELD_EXEMPLARS"}
        ended = run("unitscope demo --no-serve", desk, plain)
        assert ended.code == 0, ended.said
    for name, label in (("Pictures", "chelsea"), ("More", "coffee")):
        (desk / "home" / name).mkdir(parents=True)
        for picture in sorted((desk / "demo" / "corpus" / label).iterdir())[:6]:
            shutil.copy(picture, desk / "home" / name)
    write_weights(desk)
    return ended


def write_weights(desk: Path) -> None:
    code = "import runpy; from safetensors.torch import save_file; "
    code += "save_file(runpy.run_path('nets/mine.py')['build']().state_dict(), 'mine.safetensors')"
    subprocess.run([sys.executable, "-c", code], cwd=desk, check=True)


@pytest.fixture(scope="module")
def address(desk: Path, made: Ended | None, environment: dict[str, str]) -> Iterator[str]:
    """The README's server, at a port of its own."""
    with serving("unitscope serve demo/atlas --corpus demo/corpus", desk, environment) as address:
        yield address


def earlier_version(desk: Path, environment: dict[str, str]) -> str:
    """The name of the oldest version of the demo's atlas."""
    listed = json.loads(run("unitscope versions demo/atlas --json", desk, environment).written)["rows"]
    assert len(listed) > 1
    return str(min(listed, key=lambda row: row["created"])["version"])


@contextmanager
def serving(text: str, desk: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a server until it answers, and stop it as its reader would."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", *shlex.split(text), "--port", str(port)]
    process = subprocess.Popen(words, cwd=desk, env=environment)
    try:
        wait_for(f"http://localhost:{port}/livez", process)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(60)


def wait_for(address: str, process: "subprocess.Popen[bytes]", seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while True:
        assert process.poll() is None, "the server has ended"
        try:
            assert urlopen(address, timeout=10).status == 200
            return
        except OSError:
            assert time.monotonic() < until, f"{address} does not answer"
            time.sleep(0.2)


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if not reason_not_to_run(command.text)],
    ids=lambda command: f"{command.line}: {command.text[:50]}",
)
def test_a_command_does_what_the_readme_says(
    command: Command, desk: Path, made: Ended | None, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if command.program == "curl":
        asked = shlex.split(command.text)[1].replace(SERVED, request.getfixturevalue("address"))
        assert len(urlopen(f"http://{asked}").read().splitlines()) == 10  # names of columns, and nine patches
    elif command.text.startswith("unitscope serve"):
        with serving(command.text, desk, environment):
            pass
    elif command.text.startswith("unitscope demo"):
        if made is None:
            pytest.skip("a demo that was there is used")
        assert alike(command.shown or "", made.written), made.written
    else:
        flags = [flags for beginning, (flags, _) in SHORTER.items() if command.text.startswith(beginning)]
        text = command.text
        if VERSION in text.split():
            text = text.replace(VERSION, earlier_version(desk, environment))
        ended = run(" ".join([text, *flags]), desk, environment)
        assert ended.code == 0, ended.said
        if command.shown is not None:
            assert alike(command.shown, ended.written + ended.said), ended.written + ended.said


@pytest.mark.long
def test_the_sql_answers(desk: Path, made: Ended | None) -> None:
    (block,) = (block for block in blocks(README) if block.language == "sql")
    with duckdb.connect(str(desk / "catalog.duckdb"), read_only=True) as catalog:
        for question in filter(str.strip, block.text.split(";")):
            assert catalog.execute(question).fetchall(), question


@pytest.mark.long
def test_the_python_runs(address: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    (block,) = (block for block in blocks(README) if block.language == "python")
    names: dict[str, Any] = {}
    exec(block.text.replace(SERVED, address), names)
    assert names["atlas"].top("_blocks.15:290", k=9, label="chelsea").num_rows == 9
