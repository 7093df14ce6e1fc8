"""Progress is shown on stderr: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from unitscope_schemas.progress import Progress

Style = Literal["auto", "bar", "log", "json", "none"]
_LINE_EVERY_S = 10.0

_STAGES = {
    "plan": "measuring layers",
    "scan": "scanning",
    "again": "scanning again",
    "rank": "ranking",
    "merge": "merging ranks",
    "boxes": "measuring boxes",
    "embed": "indexing patches",
    "ranks": "ranking again",
    "check": "checking",
    "optimise": "optimising",
    "project": "projecting",
    "correlate": "comparing units",
}


@contextmanager
def shown(style: Style) -> "Iterator[Callable[[Progress], None]]":
    """Yield a function that shows each progress it is told, in the given style.

    Meanwhile what is printed goes to stderr: Ray tells of dead workers on stdout, which is for data.
    """
    if style == "auto":
        style = "bar" if sys.stderr.isatty() else "log"
    with redirect_stdout(sys.stderr):
        if style == "bar":
            with _bar() as tell:
                yield tell
        elif style == "none":
            yield lambda progress: None
        else:
            yield _Lines(as_json=style == "json")


@contextmanager
def _bar() -> "Iterator[Callable[[Progress], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:>16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[nodes]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def tell(progress: "Progress") -> None:
            name = _STAGES[progress.stage]
            if name not in tasks:
                tasks[name] = bars.add_task(name, unit=progress.unit, nodes="")
            if progress.note:
                bars.console.print(progress.note)
            elapsed_s = bars.tasks[tasks[name]].elapsed or 0.0
            nodes = _by_node(progress, elapsed_s)
            bars.update(tasks[name], completed=progress.done, total=progress.total, nodes=nodes)

        yield tell


class _Lines:
    """The first and last line of every stage, and one every ten seconds with rate and time left."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.stage = ""
        self.started = self.told = 0.0

    def __call__(self, progress: "Progress") -> None:
        now = time.monotonic()
        if progress.note and not self.as_json:
            sys.stderr.write(progress.note + "\n")
        if progress.stage != self.stage:
            self.stage, self.started = progress.stage, now
        elif progress.done < progress.total and now - self.told < _LINE_EVERY_S:
            return
        self.told = now
        rate = progress.done / max(now - self.started, 1e-9) if progress.done else 0.0
        left_s = (progress.total - progress.done) / rate if rate else None
        sys.stderr.write(self._line(progress, rate, left_s) + "\n")
        sys.stderr.flush()

    def _line(self, progress: "Progress", rate: float, left_s: float | None) -> str:
        if self.as_json:
            import json

            rounded = None if left_s is None else round(left_s, 1)
            return json.dumps({**progress.__dict__, "per_s": round(rate, 2), "left_s": rounded})
        text = f"{_STAGES[progress.stage]}: {progress.done} of {progress.total} {progress.unit}"
        if rate and left_s:
            text += f", {rate:.1f} per second, {left_s:.0f} s left"
        return f"{text} {_by_node(progress, time.monotonic() - self.started)}".rstrip()


def _by_node(progress: "Progress", elapsed_s: float) -> str:
    """Return each node's rate, where there are several."""
    if len(progress.nodes) < 2:
        return ""
    rates = (f"{node} {done / max(elapsed_s, 1e-9):.1f}/s" for node, done in sorted(progress.nodes.items()))
    return f"({', '.join(rates)})"
