"""Every number that can be asked has a least and a greatest value, every text and list a greatest length."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from tests.services.conftest import UNIT
from unitscope_schemas import questions
from unitscope_schemas.answers.jobs import JobQuery
from unitscope_schemas.answers.live import LiveAsk
from unitscope_schemas.question import Question

READ_FROM_TEXT = {"box", "quantile"}
"""Fields that a validator reads from a text of four or two numbers."""
FREE = {"openapi", "version"}


def unbounded(schema: Any, where: str, definitions: dict[str, Any]) -> Iterator[str]:
    """Name what has no bounds in a JSON schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from unbounded(definitions[name], where, definitions)
        return
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from unbounded(part, where, definitions)
    if where.rpartition(".")[2] in READ_FROM_TEXT or "enum" in schema or "const" in schema:
        return
    kind = schema.get("type")
    if kind in ("integer", "number"):
        low = {"minimum", "exclusiveMinimum"} & set(schema)
        high = {"maximum", "exclusiveMaximum"} & set(schema)
        if not (low and high):
            yield f"{where}: a {kind} without both bounds"
    elif kind == "string" and not {"maxLength", "pattern"} & set(schema):
        yield f"{where}: a text of any length"
    elif kind == "array":
        if "maxItems" not in schema:
            yield f"{where}: a list of any length"
        yield from unbounded(schema.get("items", {}), f"{where}[]", definitions)
    elif kind == "object":
        for name, inner in schema.get("properties", {}).items():
            yield from unbounded(inner, f"{where}.{name}", definitions)


def models() -> list[type[Question]]:
    """All questions."""
    found = [value for value in vars(questions).values() if isinstance(value, type) and issubclass(value, Question)]
    return sorted(found, key=lambda model: model.__name__)


@pytest.mark.parametrize("model", [*models(), JobQuery, LiveAsk], ids=lambda model: getattr(model, "__name__", "jobs"))
def test_every_field_of_every_question_is_bounded(model: Any) -> None:
    schema = TypeAdapter(model).json_schema()
    assert list(unbounded(schema, "", schema.get("$defs", {}))) == []


def test_every_parameter_of_every_address_is_bounded(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    definitions, free = document["components"]["schemas"], []
    for path, item in document["paths"].items():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] not in ("atlas",):  # a name among those that are served
                    free += list(unbounded(parameter["schema"], f"{path}.{parameter['name']}", definitions))
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            free += list(unbounded(body, path, definitions))
    assert free == []


@pytest.mark.parametrize(
    "asked",
    [
        f"{UNIT}/patches?label={'x' * 5000}",
        f"{UNIT}/patches?{'&'.join(['where=label%3Da'] * 65)}",
        f"{UNIT}/patches?min_activation=nan",
        f"{UNIT}/patches?min_activation=inf",
        f"/api/v1/atlases/tiny/layers/{'x' * 5000}",
        f"/a/tiny/layers/_blocks.5/units/3?label={'x' * 5000}",
    ],
    ids=["label", "conditions", "nan", "inf", "layer", "page"],
)
def test_what_is_beyond_is_refused_in_words(asked: str, client: TestClient) -> None:
    answer = client.get(asked)
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["detail"]) < 2000


def test_a_body_that_is_no_picture_is_short(client: TestClient) -> None:
    job = b'{"kind": "optimise", "x": "' + b"x" * 4_000_000 + b'"}'
    answer = client.post("/api/v1/jobs", content=job, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "the limit of 4,000,000 bytes" in answer.json()["detail"]) == (413, True)
    picture = client.post("/api/v1/atlases/tiny/uploads", content=job, headers={"Content-Type": "image/png"})
    assert picture.status_code == 422 or picture.json()["detail"].startswith("not a picture"), picture.text
