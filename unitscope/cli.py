"""The command line: arguments -> config -> one call. stdout is data, stderr is talk."""

import os
import shlex
import signal
import sys
from importlib import import_module
from typing import NoReturn

from unitscope.commands.app import app, tell
from unitscope_schemas.errors import ClusterError, UnitscopeError

_KEPT = {
    "index": "finished shards",
    "demo": "finished shards",
    "optimise": "stored pictures",
    "optimize": "stored pictures",
    "project": "stored pictures",
}
"""What stays of a command that is stopped; it goes on from there."""
_WHOLE = frozenset(("verify", "similar", "compare", "compact", "export", "gc", "remove", "revert"))
"""Commands whose work counts only when all of it is done."""

_GROUPS = ("demo", "index", "questions", "relations", "annotations", "optimise", "project", "serve", "export", "upkeep")

for _group in _GROUPS:
    import_module(f"unitscope.commands.{_group}")  # adds its commands, in the order in which help lists them


def main() -> NoReturn:
    """Run the command line; exits 0 done, 1 failed, 2 usage, 3 too many skipped, 4 faults found, 5 not found, 6 busy or
    other format, 130 or 143 on signals."""
    signal.signal(signal.SIGTERM, _stop)
    ClusterError.again = f"Resume with: {_command()}"
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as stop:
        code = 143 if stop.code == signal.SIGTERM else stop.code  # while Ray starts, its answer is in place of ours
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except Exception as error:  # noqa: BLE001  (the outermost border: every failure becomes words and an exit code)
        code = _failure_code(error)
    if code in (130, 143):
        tell(f"{'interrupted' if code == 130 else 'stopped'}{_resume_words()}")
    sys.stdout.flush()
    sys.exit(code or 0)


def _command() -> str:
    return shlex.join(["unitscope", *sys.argv[1:]])


def _resume_words() -> str:
    """Return what is kept of a command that was stopped, and how to go on with it."""
    name, again = next(iter(sys.argv[1:]), ""), _command()
    if name in _KEPT:
        return f"; {_KEPT[name]} are kept. Resume with: {again}"
    return f"; nothing is half done. Start again with: {again}" if name in _WHOLE else ""


def _failure_code(error: Exception) -> int:
    """Say what went wrong and return the exit code; an unexpected error shows its stack."""
    if isinstance(error, UnitscopeError):
        tell(f"error: {error}")
        return error.exit_code
    show = getattr(error, "show", None)
    if show is not None:
        show(file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    sys.excepthook(type(error), error, error.__traceback__)
    return 1


def _stop(_number: int, _frame: object) -> None:
    raise SystemExit(143)
