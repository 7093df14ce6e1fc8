"""How far a run has come, and how work tells it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal[
    "plan", "scan", "again", "rank", "merge", "boxes", "embed", "ranks", "check", "optimise", "project", "correlate"
]
"""Name of a stage of a run."""


@dataclass(frozen=True)
class Progress:
    """How far a stage of a run has come."""

    stage: Stage
    done: int
    """Count of what is done."""
    total: int
    """Count of what there is to do."""
    unit: str
    """Name of what `done` and `total` count, for example `files`."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Count of what this run has done on each node of the cluster, by the node's name."""
    skipped: int = 0
    """Count of the files that are done and are no usable picture."""
    rows: int = 0
    """Count of peaks written so far."""
    note: str = ""
    """Note that a person should read now; empty if there is none."""


Report = Callable[[Progress], None]
"""A function that a run tells its progress."""

Tell = Callable[[int, int], None]
"""A function that work of one kind tells its progress: steps done and steps in all; what it raises ends the work."""
