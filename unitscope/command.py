"""The command `unitscope` itself, which each module adds its commands to, and how it talks."""

import sys

import typer

app = typer.Typer(
    name="unitscope",
    help="Which image patches excite each unit of a vision model most, over millions of images.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def tell(text: str) -> None:
    """Say something to the person: on stderr, never among the data."""
    sys.stderr.write(text + "\n")


def tell_stale(count: int) -> None:
    """Say that figures count removed images, if there are any."""
    if count:
        tell(f"ranks, percentiles and statistics still count {count} removed images; unitscope compact renews them")
