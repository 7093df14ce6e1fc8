"""One thing that is not as an atlas says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is not as the manifest says."""

    kind: str
    where: str
    what: str
