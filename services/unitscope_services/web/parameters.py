"""Parameters of addresses, their ranges, and what they are turned into."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from fastapi import Depends, Path, Query
from starlette.requests import Request

from unitscope_schemas.errors import UsageError, listing
from unitscope_schemas.geometry import Box, Location
from unitscope_services.atlas.image_filter import ImageFilter

MOST_ROWS = 1000

Limit = Annotated[int | None, Query(ge=1, le=MOST_ROWS, description="how many rows a page has")]
K = Annotated[int | None, Query(ge=1, le=MOST_ROWS, description="the same as limit")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before; of the same question")]
Channel = Annotated[int, Path(description="channel of the layer, from 0")]
LayerName = Annotated[str, Path(description="module path, for example `layer4.1.conv2`")]
ImageName = Annotated[str, Path(description="image id, or at least six of its first digits")]
Where = Annotated[
    list[str] | None,
    Query(description="condition on metadata, repeatable: `column=value`, with numbers also `>=`, `<=`, `>`, `<`"),
]
BoxText = Annotated[
    str | None, Query(description="`top,left,bottom,right` in pixels of the upright original picture, half-open")
]

Fields = Annotated[list[str] | None, Query(description="as one text, or as its numbers one by one, as forms send them")]


def passing_filter(label: str | None = None, where: Where = None) -> ImageFilter:
    """Which images a question is about."""
    return ImageFilter(label, tuple(where or ()))


Passing = Annotated[ImageFilter, Depends(passing_filter)]


def row_count(limit: int | None, k: int | None, default: int) -> int:
    """The number of rows by either name; raises UsageError if they contradict each other."""
    if limit is not None and k is not None and limit != k:
        raise UsageError(f"limit is {limit} and k is {k}: they are two names of one thing, give one")
    return limit or k or default


def box_of(text: str | None) -> Box | None:
    """A box as it is written in an address; raises UsageError."""
    return None if text is None else Box.parse(text)


def box_in(fields: Sequence[str] | None) -> Box | None:
    """A box from one text or from four fields of a form; raises UsageError."""
    return box_of(_joined(fields, ","))


def cell_in(fields: Sequence[str] | None) -> Location | None:
    """A cell `row,col` in the same way."""
    text = _joined(fields, ",")
    if text is None:
        return None
    try:
        row, col = map(int, text.split(","))
    except ValueError:
        raise UsageError(f"cell {text!r} is not two whole numbers: row,col") from None
    return Location(row, col)


def band_in(fields: Sequence[str] | None) -> str | None:
    """A percentile band `a..b` in the same way; not yet checked."""
    return _joined(fields, "..")


def _joined(fields: Sequence[str] | None, between: str) -> str | None:
    return between.join(fields) if fields and any(fields) else None


def check_names(request: Request) -> None:
    """Raises UsageError for a parameter that the route does not have, naming the nearest."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    if dependant is None or not request.query_params:
        return
    known = {*_names(dependant), "v"}
    for name in request.query_params:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {listing(sorted(known - {'v'})) or 'none'}"
            raise UsageError(f"there is no parameter {name!r} here; {hint}")


def _names(dependant: Any) -> Iterator[str]:
    for parameter in dependant.query_params:
        yield parameter.alias
    for inner in dependant.dependencies:
        yield from _names(inner)
