"""The parameters of addresses: what stands in the path, and the names that a route knows."""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Query
from fastapi.params import Form
from pydantic import BaseModel
from starlette.requests import Request

from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.question import LONGEST_TEXT, SAFE, VERSION, Question, check_names
from unitscope_schemas.questions import MOST_COUNT, Text
from unitscope_schemas.units import UnitId

PageCursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before; of the same question")]
Channel = Annotated[int, Path(ge=0, le=MOST_COUNT, description="channel of the layer, from 0")]
LayerName = Annotated[str, Path(max_length=LONGEST_TEXT, description="module path, for example `layer4.1.conv2`")]
ImageName = Annotated[str, Path(max_length=LONGEST_TEXT, description="image id, or at least six of its first digits")]
BoxText = Annotated[
    str | None,
    Query(
        max_length=LONGEST_TEXT,
        description="`top,left,bottom,right` in pixels of the upright original picture, half-open",
    ),
]
Fields = Annotated[
    list[Text] | None, Query(max_length=8, description="as one text, or as its numbers one by one, as forms send them")
]
Paged = TypeVar("Paged", bound=Question)


def answers_rows(route: object) -> bool:
    """Return whether a route answers rows, which come as CSV too."""
    answer = getattr(route, "responses", {}).get(200, {})
    return "text/csv" in answer.get("content", {})


def unit_in_path(layer: LayerName, channel: Channel) -> UnitId:
    """Return the unit that an address is about."""
    return UnitId(layer, channel)


UnitInPath = Annotated[UnitId, Depends(unit_in_path)]


def paged(question: Paged, size: int) -> Paged:
    """Return the question with a page of so many rows, unless it says how many."""
    return question if getattr(question, "k", None) else question.model_copy(update={"k": size})


def cell_in(fields: list[str] | None) -> Location | None:
    """Return the cell `row,col` of one text or of two fields of a form; raises UsageError."""
    text = _joined(fields, ",")
    if text is None:
        return None
    try:
        row, col = map(int, text.split(","))
    except ValueError:
        raise UsageError(f"cell {text!r} is not two whole numbers: row,col") from None
    return Location(row, col)


def band_in(fields: list[str] | None) -> str | None:
    """Return the percentile band `a..b` of one text or of two fields of a form; it is not yet checked."""
    return _joined(fields, "..")


def _joined(fields: list[str] | None, between: str) -> str | None:
    return between.join(fields) if fields and any(fields) else None


async def check_parameters(request: Request) -> None:
    """Raise UsageError for a parameter or a field of a form that the route does not have, naming the nearest."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    if dependant is None:
        return
    if request.query_params:
        known = {*_names(dependant), *([SAFE] if answers_rows(request.scope["route"]) else [])}
        check_names([name for name in request.query_params if name != VERSION], sorted(known))
    if any(isinstance(parameter.field_info, Form) for parameter in dependant.body_params):
        check_names(list(await request.form()), sorted(parameter.alias for parameter in dependant.body_params))


def _names(dependant: Any) -> Iterator[str]:
    for parameter in dependant.query_params:
        model = parameter.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from model.model_fields
        else:
            yield parameter.alias
    for inner in dependant.dependencies:
        yield from _names(inner)
