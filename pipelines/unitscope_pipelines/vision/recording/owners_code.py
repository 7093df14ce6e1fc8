"""Code of a person's own that runs here: its errors become one line, with the file and line that raised them."""

import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from unitscope_schemas.errors import ModelError, UnitscopeError

_OTHERS = tuple(
    {
        str(Path(__file__).parents[2]),
        *(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")),
    }
)
"""Folders whose files are not the person's own: this package, installed ones and Python's."""
_ESCAPE_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MOST_CHARACTERS = 300


@contextmanager
def owners_code(what: str, remedy: str = "") -> Iterator[None]:
    """Raise ModelError within the context for whatever a person's own code raises.

    It says `what` failed, the error in one line, where it was raised, and the `remedy`. Our own errors and a shortage
    of memory go through as they are.
    """
    try:
        yield
    except (UnitscopeError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(f"{what} failed: {in_one_line(error)}{_place(error)}{remedy and f'; {remedy}'}") from error


def in_one_line(error: BaseException, most: int = _MOST_CHARACTERS) -> str:
    """Return an error's type and text as one line without escape codes, shortened to so many characters."""
    text = " ".join(plain_text(str(error)).split())
    return f"{type(error).__name__}: {text[:most]}{'…' if len(text) > most else ''}" if text else type(error).__name__


def plain_text(text: str) -> str:
    """Return a text without the escape codes by which terminals colour it."""
    return _ESCAPE_CODE.sub("", text)


def _place(error: BaseException) -> str:
    """Return file and line in words: the innermost of the person's own code, else the innermost of all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if not frame.filename.startswith(_OTHERS)]
    frame = (own or frames)[-1]
    return f" ({frame.filename}, line {frame.lineno})"
