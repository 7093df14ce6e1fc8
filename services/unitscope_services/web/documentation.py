"""The description of the API: every answer with its model, every error as problem details, and a page of it."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from unitscope_schemas.formats import MEDIA_TYPES
from unitscope_schemas.question import SAFE
from unitscope_schemas.questions import NeighborBatchQuestion
from unitscope_services.server import problems
from unitscope_services.server.caching import package_version

Responses = dict[int | str, dict[str, Any]]

ROWS: Responses = {
    200: {
        "description": "A page of rows; .ndjson .csv .arrow .parquet at the end of the address give the rows alone; "
        "`safe=1` is a CSV for spreadsheets",
        "content": {
            media_type.split(";")[0]: {"schema": {"type": "string"}}
            for file_format, media_type in MEDIA_TYPES.items()
            if file_format != "json"
        },
    }
}
PICTURE: Responses = {
    200: {"description": "The picture", "content": {f"image/{kind}": {} for kind in ("jpeg", "png", "webp")}}
}
DRAWING: Responses = {200: {"description": "The drawing", "content": {"image/png": {}, "image/svg+xml": {}}}}
_SAFE = {
    "name": SAFE,
    "in": "query",
    "required": False,
    "schema": {"type": "integer", "minimum": 0, "maximum": 1, "default": 0, "title": "Safe"},
    "description": "of `.csv`: 1 puts an apostrophe before text that a spreadsheet would take for a formula",
}
_ORDER = ("atlases", "units", "similarity", "images", "pictures", "uploads", "annotations", "jobs", "server")

_READ_LATER = (NeighborBatchQuestion,)
"""Bodies that routes read themselves, in a turn, and refer to by name."""


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, which is made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="unitscope",
            version=package_version(),
            summary="Which image patches excite each unit of a vision model most",
            routes=app.routes,
        )
        for path in document["paths"].values():
            for operation in path.values():
                if "text/csv" in operation["responses"].get("200", {}).get("content", {}):
                    operation.setdefault("parameters", []).append(_SAFE)
                for status, response in operation["responses"].items():
                    if status in ("4XX", "5XX"):
                        response["content"] = {problems.MEDIA_TYPE: response["content"]["application/json"]}
        schemas = document["components"]["schemas"]
        schemas |= {model.__name__: model.model_json_schema() for model in _READ_LATER}
        document["components"]["schemas"] = dict(sorted(schemas.items()))
        app.openapi_schema = document
    return app.openapi_schema


def operations(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the operations of an OpenAPI document by tag, each with `method` and `path`."""
    by_tag: dict[str, list[dict[str, Any]]] = {tag: [] for tag in _ORDER}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            tag = operation.get("tags", ["server"])[0]
            by_tag.setdefault(tag, []).append({"method": method.upper(), "path": path, **operation})
    return by_tag
