"""Stored comparisons of an atlas with others."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from pydantic import ValidationError

from schemas import layout
from schemas.errors import AtlasError, NotFoundError, UsageError, listing
from schemas.kin import Comparison, ComparisonPage, ComparisonRow, MatchPage, MatchRow
from services.answers import cursors
from services.opened.atlas import Atlas

SORTS = ("channel", "correlation", "overlap", "margin", "same_correlation", "same_overlap")


def comparisons(atlas: Atlas) -> ComparisonPage:
    """The comparisons of this version of the atlas with others, in order of their ids."""
    found = [_read(atlas, path) for path in _paths(atlas)]
    rows = [
        ComparisonRow(
            id=one.id,
            atlas_b=one.b.name,
            model_b=one.b.model,
            version_b=one.b.version,
            shared_images=one.shared_images,
            layers=len(one.layers),
            units=len(one.rows),
        )
        for one in found
    ]
    return ComparisonPage(rows=rows)


def comparison(
    atlas: Atlas,
    identifier: str,
    layer: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    sort: str = "channel",
) -> MatchPage:
    """A page of a comparison's units, of one layer or all; without `limit` all of them.

    `sort` is one of SORTS, descending with a leading minus; units without a value come last, ties by layer and channel.
    Raises NotFoundError that names the comparisons there are.
    """
    paths = {PurePosixPath(path).stem: path for path in _paths(atlas)}
    if identifier not in paths:
        there = f"there are {listing(paths)}" if paths else f"make one with unitscope compare {atlas.name} OTHER"
        raise NotFoundError(f"atlas {atlas.name} has no comparison {identifier!r} of this version; {there}")
    found = _read(atlas, paths[identifier])
    if layer is not None:
        atlas.layer(layer)
    rows = _sorted([row for row in found.rows if layer in (None, row.layer)], sort)
    question = f"{identifier} {layer} {sort}"
    start = cursors.decode(cursor, question) or 0
    end = len(rows) if limit is None else start + limit
    following = cursors.encode(end, question) if end < len(rows) else None
    return MatchPage(**{**dict(found), "rows": rows[start:end]}, next=following)


def _sorted(rows: Sequence[MatchRow], sort: str) -> list[MatchRow]:
    name, sign = sort.removeprefix("-"), -1 if sort.startswith("-") else 1
    if name not in SORTS:
        raise UsageError(f"units cannot be sorted by {name!r}; there are {listing(SORTS)}, also with a leading -")
    if name == "channel":
        return list(rows)[::sign]
    values = [getattr(row, name) for row in rows]
    order = sorted(range(len(rows)), key=lambda place: (values[place] is None, sign * (values[place] or 0.0)))
    return [rows[place] for place in order]


def _paths(atlas: Atlas) -> list[str]:
    stored = (file.path for file in atlas.store.walk(layout.COMPARISONS))
    return sorted(path for path in stored if path.endswith(".json") and layout.version_of(path) == atlas.version)


def _read(atlas: Atlas, path: str) -> Comparison:
    try:
        return Comparison.model_validate_json(atlas.store.read(path) or b"")
    except ValidationError as error:
        raise AtlasError(f"comparison {path} is damaged: {str(error)[:200]}; delete it, and compare again") from None
