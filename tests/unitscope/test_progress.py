"""What is said while a command works is no data."""

import pytest

from unitscope.commands.progress import Style, shown


@pytest.mark.parametrize("style", ["bar", "log", "json", "none"])
def test_what_others_print_meanwhile_is_kept_off_stdout(style: Style, capsys: pytest.CaptureFixture[str]) -> None:
    with shown(style):
        print("a worker died")  # noqa: T201  (as Ray does)
    print("data")  # noqa: T201
    said = capsys.readouterr()
    assert said.out == "data\n"
    assert "a worker died" in said.err
