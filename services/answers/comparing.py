"""Units compared on request, in this process: the work of the commands, stored in the atlas as they store it."""

from collections.abc import Iterator

from pipelines.comparison import compare, layer_pairs, stored_comparison
from pipelines.kin import Here, LayerPair, Sealed, Tell, find_kin, shared_sides
from schemas.kin import CompareQuery, SimilarQuery
from schemas.units import UnitId
from services.answers.links import Links
from services.opened.atlas import Atlas


def check_similar(atlas: Atlas, query: SimilarQuery) -> None:
    """Raises what is wrong with a question for co-activation."""
    unit = UnitId.parse(query.unit)
    atlas.unit(unit)
    atlas.layer(query.among or unit.layer)


def compute_similar(atlas: Atlas, query: SimilarQuery, tell: Tell) -> Iterator[str]:
    """Compute and store the co-activation of the unit's layer; gives the address of the units most like it."""
    unit, own = UnitId.parse(query.unit), _sealed(atlas)
    find_kin(own, own, [LayerPair(unit.layer, query.among or unit.layer)], Here(tell))
    links = Links(atlas.name, atlas.version)
    yield links.api("layers", unit.layer, "units", unit.channel, "similar", among=query.among)


def check_compare(atlas: Atlas, query: CompareQuery, other: Atlas) -> None:
    """Raises UsageError where no image or no layer is shared, NotFoundError for a layer that is not there.

    Reads both atlases' image ids: about a second for a million images.
    """
    one, two = _sealed(atlas), _sealed(other)
    layer_pairs(one, two, (query.layer, query.layer_b))
    shared_sides(one, two)


def compute_compare(atlas: Atlas, query: CompareQuery, tell: Tell, other: Atlas) -> Iterator[str]:
    """Compare two atlases and store the result in the first; gives its address."""
    found = compare(_sealed(atlas), _sealed(other), Here(tell), (query.layer, query.layer_b))
    yield Links(atlas.name, atlas.version).api("comparisons", found.id)


def stored_id(atlas: Atlas, query: CompareQuery, other: Atlas) -> str | None:
    """The id of the stored comparison that answers a question, if there is one; raises as `check_compare`."""
    found = stored_comparison(_sealed(atlas), _sealed(other), (query.layer, query.layer_b))
    return None if found is None else found.id


def _sealed(atlas: Atlas) -> Sealed:
    return Sealed(atlas.root, atlas.manifest)
