"""The command line: arguments -> config -> one call. stdout is data, stderr is talk."""

import os
import shlex
import signal
import sys
from importlib import import_module
from typing import NoReturn

from unitscope.commands.app import app, tell

for _group in ("demo", "index", "questions", "relations", "optimise", "project", "serve", "export", "upkeep"):
    import_module(f"unitscope.commands.{_group}")  # adds its commands, in the order in which help lists them


def main() -> NoReturn:
    """Run the command line; exits 0 done, 1 failed, 2 usage, 3 too many skipped, 4 faults found, 5 not found, 6 busy or
    other format, 130 or 143 on signals."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as stop:
        code = stop.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except Exception as error:  # noqa: BLE001  (the outermost border: every failure becomes words and an exit code)
        code = _failure_code(error)
    if code == 130:
        resume = shlex.join(["unitscope", *sys.argv[1:]])
        shards, stored = "finished shards", "stored pictures"
        whole = {"index": shards, "demo": shards, "optimise": stored, "project": stored}
        what = whole.get(next(iter(sys.argv[1:]), ""))
        hint = f"; {what} are kept. Resume with: {resume}" if what else ""
        tell(f"interrupted{hint}")
    sys.stdout.flush()
    sys.exit(code or 0)


def _failure_code(error: Exception) -> int:
    """Say what went wrong and return the exit code; an unexpected error shows its stack."""
    from unitscope_schemas.errors import UnitscopeError

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
