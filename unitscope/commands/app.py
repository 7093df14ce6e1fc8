"""The command `unitscope` itself, which each module adds its commands to, and how it talks."""

import sys
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

_TOLD = 9
"""Most missing pictures that are named one by one."""

app = typer.Typer(
    name="unitscope",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"unitscope {installed_version('unitscope')}\n")
        raise typer.Exit


@app.callback()
def unitscope(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Find the image patches that excite each unit of a vision model most, over millions of images."""


def tell(text: str) -> None:
    """Say something to the person: on stderr, never among the data."""
    sys.stderr.write(text + "\n")


def tell_note(note: str | None) -> None:
    """Say what limits an answer, if anything does."""
    if note is not None:
        tell(note)


def tell_kept(count: int | None) -> None:
    """Say that lower percentiles are bounds, if the atlas keeps first ranks alone."""
    if count is not None:
        tell(f"the atlas keeps the first {count} ranks of each unit: percentiles below theirs are lower bounds")


def tell_missing(missing: Sequence[str]) -> None:
    """Say which pictures are missing and end with exit code 5, where blanks stand in for some; else do nothing."""
    if not missing:
        return
    tell(f"{len(missing)} of the pictures cannot be shown, and a blank stands in for each:")
    for text in missing[:_TOLD]:
        tell(f"  {text}")
    if len(missing) > _TOLD:
        tell(f"  … and {len(missing) - _TOLD} more")
    tell("if the pictures have moved, say --corpus and the folder they are in now")
    raise typer.Exit(5)


def tell_stale(count: int) -> None:
    """Say that figures count removed images, if there are any."""
    if count:
        tell(f"ranks, percentiles and statistics still count {count} removed images; unitscope compact renews them")
