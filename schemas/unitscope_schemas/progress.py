"""How far a run has come, and how work tells it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far a stage of the run has come."""

    stage: str
    done: int
    total: int
    unit: str
    nodes: Mapping[str, int] = field(default_factory=dict)
    """How much of it this run has done on each node of the cluster."""
    skipped: int = 0
    """Of the files that are done: those that are no usable picture."""
    rows: int = 0
    """Peaks written so far."""
    note: str = ""
    """What a person should know now, if anything."""


Report = Callable[[Progress], None]

Tell = Callable[[int, int], None]
"""How work of one kind tells its progress: called with steps done and steps in all."""
