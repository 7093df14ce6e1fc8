"""The fenced blocks of a page: which commands stand there, what the page shows as their output, and how one is run."""

import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

COLUMNS = 100
"""Width of the terminal whose output pages show."""
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BESIDE = re.compile(r"\s{2,}#.*$")
"""What a page says beside a command."""
_BOLD = re.compile("\x1b\\[[01]m")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page on which it begins."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command of a page, with the output that the page shows below it, if any, and the line on which it stands."""

    text: str
    shown: str | None
    line: int

    @property
    def program(self) -> str:
        """The first word."""
        return self.text.split()[0]


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, what it wrote on a terminal, and what it said beside."""

    code: int
    written: str
    said: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 2)


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page: lines of `sh`, and of `console` those behind a `$`, with the lines below them."""
    for block in blocks(page):
        lines = block.text.splitlines()
        if block.language == "sh":
            for number, line in enumerate(lines):
                yield Command(_BESIDE.sub("", line), None, block.line + number)
        elif block.language == "console":
            starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
            for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
                shown = "\n".join(lines[start + 1 : end]).rstrip("\n")
                yield Command(lines[start].removeprefix("$ "), shown, block.line + start)


def run(text: str, folder: Path, environment: Mapping[str, str]) -> Ended:
    """Run `unitscope …` by a shell of that folder, with its output on a terminal of `COLUMNS` characters."""
    ours, theirs = pty.openpty()
    text = re.sub(r"^unitscope\b", f"'{sys.executable}' -m unitscope", text)
    with tempfile.TemporaryFile() as talk:
        command = ["sh", "-c", text]
        environment = {**environment, "COLUMNS": str(COLUMNS)}
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=talk
        )
        os.close(theirs)
        written = bytearray()
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            while piece := _piece(terminal.fileno()):
                written += piece
        code = process.wait()
        talk.seek(0)
        said = talk.read().decode(errors="replace")
    return Ended(code, _BOLD.sub("", written.decode()).replace("\r\n", "\n"), said)


def _piece(terminal: int) -> bytes:
    """Return what is there to read of a terminal, nothing where nobody writes on it any more."""
    try:
        return os.read(terminal, 65_536)
    except OSError:  # on Linux the end of a terminal is an error
        return b""


def alike(shown: str, printed: str) -> bool:
    """Whether two outputs agree word by word; numbers may differ by one in the last digit, as processors round."""
    lines, others = ([line.split() for line in text.strip().splitlines()] for text in (shown, printed))
    return [*map(len, lines)] == [*map(len, others)] and all(
        _alike(word, other)
        for line, other_line in zip(lines, others, strict=True)
        for word, other in zip(line, other_line, strict=True)
    )


def _alike(word: str, other: str) -> bool:
    if word == other:
        return True
    decimals = len(word.partition(".")[2])
    try:
        return decimals > 0 and abs(float(word) - float(other)) < 1.5 * 10**-decimals
    except ValueError:
        return False
