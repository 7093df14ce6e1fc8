"""What is said while a command works is no data."""

from typing import get_args

import pytest

from unitscope.commands.progress import Style, shown
from unitscope_schemas.progress import Progress, Stage


@pytest.mark.parametrize("style", ["bar", "log", "json", "none"])
def test_what_others_print_meanwhile_is_kept_off_stdout(style: Style, capsys: pytest.CaptureFixture[str]) -> None:
    with shown(style):
        print("a worker died")  # noqa: T201  (as Ray does)
    print("data")  # noqa: T201
    said = capsys.readouterr()
    assert said.out == "data\n"
    assert "a worker died" in said.err


@pytest.mark.parametrize("style", ["bar", "log", "json"])
@pytest.mark.parametrize("stage", get_args(Stage))
def test_every_stage_of_a_run_is_shown(stage: Stage, style: Style, capsys: pytest.CaptureFixture[str]) -> None:
    with shown(style) as tell:
        tell(Progress(stage, 0, 2, "pieces"))
        tell(Progress(stage, 2, 2, "pieces", note="a note"))
    assert "pieces" in capsys.readouterr().err
