"""Answers about whence a value is: the chain from a picture's bytes to a row of an answer, and what a digest is of."""

from dataclasses import dataclass
from typing import Literal

from unitscope_schemas.answers.served import Answer

LinkState = Literal["holds", "broken", "differs", "computed", "unknown"]
"""Whether a link of a chain holds: looked at now and as it was recorded; not as it was recorded; another one, which
need not change a value; made now, as nothing of it is stored; not recorded, or not to be looked at."""


@dataclass
class TraceRow:
    """A link of the chain that a stored value hangs by."""

    link: str
    """Name of the link: picture, placement, input, libraries, code, weights, model code, peak, rank, image, shard,
    manifest, again."""
    state: LinkState
    what: str
    """What it says, and where it does not hold, why."""
    path: str | None
    """Path of the part that holds it inside the atlas."""
    row: int | None
    """Row of that part, from 0."""
    digest: str | None
    """SHA-256 of what the link is, where it has one."""


class Trace(Answer):
    """The chain that the peak of a unit on an image hangs by, looked at link by link."""

    unit: str
    image_id: str
    path: str
    version: str
    atlas_key: str
    digest: str
    """SHA-256 of the version's manifest."""
    stored: float | None
    """Activation that is stored; None where a bounded atlas has none, or it is not finite."""
    now: float | None
    """Activation of the same unit on the same picture, recorded just now; None where it could not be."""
    rank: int | None
    """Rank of the image for the unit, from 0."""
    rows: list[TraceRow]

    @property
    def broken(self) -> list[str]:
        """Names of the links that do not hold."""
        return [row.link for row in self.rows if row.state == "broken"]


@dataclass
class DigestRow:
    """A thing of an atlas that has a digest, and which answers rest on it."""

    kind: str
    digest: str
    name: str
    """Path of a part or picture, or what the thing is called."""
    rests: str
    """Answers that rest on it, in words."""


class DigestPage(Answer):
    """Everything of an atlas whose digest begins in one way."""

    prefix: str
    rows: list[DigestRow]
    next: str | None = None
