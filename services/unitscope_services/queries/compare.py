"""Comparisons of an atlas with others, and co-activation of its units: checked, computed, stored and read."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from unitscope_pipelines.derived.coactivation import (
    InProcess,
    LayerPair,
    SealedAtlas,
    find_coactivation,
    shared_sides,
)
from unitscope_pipelines.derived.compare import compare, layer_pairs, read_comparison, stored_comparison
from unitscope_schemas import cursors, layout
from unitscope_schemas.answers.relations import (
    Comparison,
    ComparisonPage,
    ComparisonRow,
    MatchPage,
    MatchRow,
)
from unitscope_schemas.errors import NotFoundError, UsageError, listing
from unitscope_schemas.progress import Tell
from unitscope_schemas.questions import CompareQuestion, ComparisonQuestion, CorrelateQuestion
from unitscope_services.atlas.atlas import Atlas

SORTS = ("channel", "correlation", "overlap", "margin", "same_correlation", "same_overlap")


def comparisons(atlas: Atlas) -> ComparisonPage:
    """Return the comparisons of this version of the atlas with others, in order of their ids."""
    results = [_read(atlas, path) for path in _paths(atlas)]
    rows = [
        ComparisonRow(
            id=result.id,
            atlas_b=result.b.name,
            model_b=result.b.model,
            version_b=result.b.version,
            shared_images=result.shared_images,
            layers=len(result.layers),
            units=len(result.rows),
        )
        for result in results
    ]
    return ComparisonPage(rows=rows)


def comparison(atlas: Atlas, identifier: str, question: ComparisonQuestion) -> MatchPage:
    """Return a page of a comparison's units, of one layer or all.

    Sorted by one of SORTS, descending with a leading minus; units without a value come last, ties by layer and channel.
    Raises NotFoundError that names the comparisons there are.
    """
    paths = {PurePosixPath(path).stem: path for path in _paths(atlas)}
    if identifier not in paths:
        there = f"there are {listing(paths)}" if paths else f"make one with unitscope compare {atlas.name} OTHER"
        raise NotFoundError(f"atlas {atlas.name} has no comparison {identifier!r} of this version; {there}")
    result = _read(atlas, paths[identifier])
    layer, sort = question.layer, question.sort
    if layer is not None:
        atlas.layer(layer)
    rows = _sorted([row for row in result.rows if layer in (None, row.layer)], sort)
    page, following = cursors.page(rows, f"{identifier} {layer} {sort}", question.k, question.cursor)
    return MatchPage(**{**dict(result), "rows": page}, next=following)


def _sorted(rows: Sequence[MatchRow], sort: str) -> list[MatchRow]:
    name, sign = sort.removeprefix("-"), -1 if sort.startswith("-") else 1
    if name not in SORTS:
        raise UsageError(f"units cannot be sorted by {name!r}; there are {listing(SORTS)}, also with a leading -")
    if name == "channel":
        return list(rows)[::sign]
    values = [getattr(row, name) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (values[index] is None, sign * (values[index] or 0.0)))
    return [rows[index] for index in order]


def _paths(atlas: Atlas) -> list[str]:
    stored = (file.path for file in atlas.store.walk(layout.COMPARISONS))
    return sorted(path for path in stored if path.endswith(".json") and layout.version_of(path) == atlas.version)


def _read(atlas: Atlas, path: str) -> Comparison:
    return read_comparison(atlas.store.read(path) or b"", path)


def check_correlate(atlas: Atlas, layer: str, question: CorrelateQuestion) -> None:
    """Raise what is wrong with a question for the co-activation of a layer's units."""
    atlas.layer(layer)
    atlas.layer(question.among or layer)


def correlate(atlas: Atlas, layer: str, question: CorrelateQuestion, tell: Tell) -> None:
    """Compute and store the co-activation of two layers' units, or of one layer's."""
    sealed = _sealed(atlas)
    find_coactivation(sealed, sealed, [LayerPair(layer, question.among or layer)], InProcess(tell))


def check_compare(atlas: Atlas, question: CompareQuestion, other: Atlas) -> None:
    """Raise UsageError where no image or no layer is shared, NotFoundError for a layer that is not there.

    Reads both atlases' image ids: about a second for a million images.
    """
    first, second = _sealed(atlas), _sealed(other)
    layer_pairs(first, second, (question.layer, question.layer_b))
    shared_sides(first, second)


def compare_here(atlas: Atlas, question: CompareQuestion, tell: Tell, other: Atlas) -> Comparison:
    """Compare two atlases in this process and store the result in the first."""
    return compare(_sealed(atlas), _sealed(other), InProcess(tell), (question.layer, question.layer_b))


def stored_id(atlas: Atlas, question: CompareQuestion, other: Atlas) -> str | None:
    """Return the id of the stored comparison that answers a question, if there is one; raises what `check_compare`
    raises."""
    stored = stored_comparison(_sealed(atlas), _sealed(other), (question.layer, question.layer_b))
    return None if stored is None else stored.id


def _sealed(atlas: Atlas) -> SealedAtlas:
    return SealedAtlas(atlas.store, atlas.manifest)
