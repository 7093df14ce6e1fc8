"""The page of a trace: the chain that one value hangs by, link by link."""

import shlex
from dataclasses import dataclass

from unitscope_schemas.answers.provenance import Trace
from unitscope_schemas.answers.served import AtlasRow
from unitscope_schemas.questions import TraceQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.queries.provenance.trace import trace
from unitscope_services.queries.session import Session
from unitscope_services.server.links import Links, links_of


@dataclass(frozen=True)
class TraceView:
    """The chain of the peak of a unit on an image."""

    atlas: AtlasRow
    links: Links
    unit: UnitId
    chain: Trace
    patch: str
    """Address of the picture of the patch where the unit peaks."""
    image: str
    """Address of the image's page, with the patch framed by the unit's field."""
    command: str
    rows_api: str
    rows_query: str


def trace_view(session: Session, unit: UnitId, image: str) -> TraceView:
    """Return the page about the peak of a unit on an image; every link is looked at now."""
    chain = trace(session, unit, TraceQuestion(image=image))
    links, name = links_of(session.atlas), session.atlas.name
    return TraceView(
        atlas=session.atlas.summary(),
        links=links,
        unit=unit,
        chain=chain,
        patch=links.peak(chain.image_id, str(unit), 360),
        image=links.image(chain.image_id),
        command=shlex.join(["unitscope", "trace", name, str(unit), chain.image_id[:16]]),
        rows_api=links.api("layers", unit.layer, "units", unit.channel, "trace"),
        rows_query=f"?image={chain.image_id[:16]}",
    )
