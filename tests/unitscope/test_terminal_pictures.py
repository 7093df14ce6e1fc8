"""Pictures in a terminal: in half blocks whose colours are the pixels', and whole by kitty's protocol."""

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from unitscope.cli import app
from unitscope.terminal_pictures import picture_rows, takes_pictures

RED, BLUE = Image.new("RGB", (40, 40), (250, 10, 20)), Image.new("RGB", (20, 40), (1, 2, 240))
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def test_half_blocks_show_both_pixels_of_a_character() -> None:
    halves = Image.new("RGB", (18, 18), (250, 10, 20))
    halves.paste((1, 2, 240), (0, 9, 18, 18))
    lines = picture_rows([halves], ["0 1.5"], 80, as_pictures=False).split("\n")
    assert lines[0].count("\x1b[38;2;250;10;20;48;2;250;10;20m▀") == 18
    assert lines[4].count("\x1b[38;2;250;10;20;48;2;1;2;240m▀") == 18
    assert lines[8].count("\x1b[38;2;1;2;240;48;2;1;2;240m▀") == 18
    assert lines[9] == "0 1.5"


@pytest.mark.parametrize(("width", "across"), [(10, 1), (37, 2), (56, 3), (80, 4), (160, 8)])
def test_rows_fit_the_terminal_and_what_is_beside_a_picture_is_clear(width: int, across: int) -> None:
    text = picture_rows([RED, BLUE] * 5, [str(number) for number in range(10)], width, as_pictures=False)
    lines = [_ESCAPES.sub("", line) for line in text.split("\n")]
    assert max(len(line.rstrip()) for line in lines) <= max(width, 18)
    assert lines[4].count("▀") == sum(18 if number % 2 == 0 else 9 for number in range(across))
    assert lines[9].split() == [str(number) for number in range(across)]


def test_kitty_gets_the_whole_picture_in_messages_of_bounded_length() -> None:
    noise = Image.effect_noise((400, 400), 90).convert("RGB")
    text = picture_rows([noise, RED], ["a", "b"], 80, as_pictures=True)
    messages = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert all(len(data) <= 4096 for _, data in messages)
    assert [head[-3:] for head, _ in messages] == ["m=1"] * (len(messages) - 1) + ["m=0"]
    sheet = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in messages))))
    assert sheet.getpixel((190 + 90, 90)) == (250, 10, 20, 255)


def test_terminals_that_take_pictures_are_known_by_their_names() -> None:
    assert takes_pictures({"TERM": "xterm-kitty"})
    assert takes_pictures({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"})
    assert not takes_pictures({"TERM": "xterm-256color"})


def test_top_shows_its_patches(tiny_atlas: Path) -> None:
    shown = CliRunner().invoke(app, ["top", str(tiny_atlas), "_blocks.5:3", "-k", "3", "--pictures"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("▀") > 100
    refused = CliRunner().invoke(app, ["top", str(tiny_atlas), "_blocks.5:3", "--pictures", "--json"])
    assert "--pictures is for people" in str(refused.exception)
