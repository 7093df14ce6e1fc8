"""Every field of every question and address is answered or refused in words, whatever stands in it (entry 23)."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.testclient import TestClient

from tests.services.conftest import UNIT
from tests.tables import vectors_of
from unitscope_schemas import cursors
from unitscope_schemas.answers.served import Problem
from unitscope_services.queries.session import Session
from unitscope_services.server import problems

API = "/api/v1/atlases/tiny"
NUMBERS = ["-1", "0", "2147483648", "-9223372036854775809", "1" + "0" * 400, "1e308", "1e-320", "nan", "inf"]
TEXTS = ["", "a" * 5000, "\u202e\x00\x1b[31mü", "../../etc/passwd", "1e400..1", "99999999999999999999,0,1,1", "[]"]
MAKES_NOTHING = ("/uploads/{upload}", "/jobs", "/metrics", "/livez", "/readyz", "/version", "/static")
"""Addresses of what is kept beside an atlas; those of uploads take the questions that images take."""


def routes() -> dict[str, APIRoute]:
    from pathlib import Path

    from unitscope_services.web.app import Settings, create_app

    found = {}
    for group in create_app(Settings(atlases=(Path("nowhere"),))).routes:
        for route in getattr(getattr(group, "original_router", None), "routes", ()):
            asks = isinstance(route, APIRoute) and "GET" in route.methods and route.path.startswith("/api/")
            if asks and not any(part in route.path for part in MAKES_NOTHING):
                found[route.path] = route
    return found


ROUTES = routes()


def fields_of(dependant: Any) -> Iterator[tuple[str, bool]]:
    """The names of a route's parameters, and whether one is needed."""
    for parameter in dependant.query_params:
        model = parameter.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from ((name, field.is_required()) for name, field in model.model_fields.items())
        else:
            yield parameter.alias, parameter.field_info.is_required()
    for inner in dependant.dependencies:
        yield from fields_of(inner)


def asked(path: str, first: str, **changed: str) -> str:
    known = {"atlas": "tiny", "layer": "_blocks.5", "channel": "3", "image": first, "kind": "png", "what": "patch"}
    values = {**known, "number": "0", "direction": "direction-" + "0" * 16, **changed}
    return re.sub(r"{(\w+)}", lambda name: quote(values.get(name[1], "x"), safe=""), path)


@pytest.mark.parametrize("path", ROUTES)
def test_hostile_values_of_every_field_are_answered_or_refused_in_words(
    path: str, client: TestClient, session: Session
) -> None:
    image = session.atlas.catalogue.rows([0])[0].image_id
    fields = dict(fields_of(ROUTES[path].dependant))
    needed = {"layer": "_blocks.5", "unit": "3", "row": "0", "col": "0", "label": "blobs", "image": image}
    base = {name: needed[name] for name, is_needed in fields.items() if is_needed}
    if "/patches/" in path:
        base["unit"] = "_blocks.5:3"
    asks = [(asked(path, image), {**base, name: value}) for name in fields for value in (*NUMBERS, *TEXTS)]
    parts = [name for name in re.findall(r"{(\w+)}", path) if name != "atlas"]
    asks += [(asked(path, image, **{name: value}), base) for name in parts for value in (*NUMBERS[:5], *TEXTS[1:4])]
    for address, query in asks:
        answer = client.get(address, params=query)
        assert answer.status_code < 500, (address, query, answer.text[:300])
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == problems.MEDIA_TYPE, (address, query)
            assert len(Problem.model_validate_json(answer.content).detail) < 2100, (address, query)


@pytest.mark.parametrize("position", [-1, 40, 2**31, 2**63, -(2**63), 2**64, 10**400, 1.5, None, True, "1", [1]])
@pytest.mark.parametrize("order", ["desc", "asc", "random"])
def test_a_cursor_whose_position_is_out_of_range_is_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, position: Any, order: str
) -> None:
    """A cursor with the right digest: whoever reads one can write another."""
    if order == "random" and position in (40, 2**31, 2**63):
        pytest.skip("a key of the random order")
    if (order, position) == ("asc", -1):
        pytest.skip("the second lowest")
    first = client.get(f"{UNIT}/patches?k=1&order={order}").json()["next"]
    digest = json.loads(cursors.base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))[1]
    monkeypatch.setattr(cursors, "_digest", lambda _: digest)
    forged = cursors.encode(position, "")
    monkeypatch.undo()
    answer = client.get(f"{UNIT}/patches?k=1&order={order}&cursor={forged}")
    assert answer.status_code == 400, answer.text
    assert "cursor" in answer.json()["detail"]


@pytest.mark.parametrize("address", [f"{API}/images", f"{API}/skipped", f"{API}/layers/_blocks.5/units"])
def test_a_forged_cursor_of_any_list_is_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    for position in (-1, 10**6, 2**64):
        forged = cursors.encode(position, "")
        with monkeypatch.context() as patched:
            patched.setattr(cursors, "_digest", lambda _: cursors.hashlib.sha256(b"").hexdigest()[:12])
            answer = client.get(address, params={"cursor": forged, "k": 1})
        assert answer.status_code == 400, answer.text


def ask_nearest(client: TestClient, vectors: Any, **fields: Any) -> Any:
    body = json.dumps({"vectors": vectors, "k": 5, **fields})
    return client.post(f"{API}/neighbors", content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("scale", [1e30, 1e-23, 1e-300, 1e300, 5e-324, -1e38, 1e20], ids=str)
def test_scores_are_cosines_whatever_the_length_of_a_vector(client: TestClient, session: Session, scale: float) -> None:
    """Beside the oracle: cosines in float64 over what is stored."""
    stored = (
        vectors_of(Path(session.atlas.root), session.atlas.manifest)
        .reshape(-1, session.search.embedding.width)
        .astype(np.float64)
    )
    pattern = np.where(np.arange(stored.shape[1]) % 3 == 0, 1.0, 0.0 if scale == 5e-324 else 0.5)
    vector = pattern if scale == 5e-324 else pattern * abs(scale) / scale
    answer = ask_nearest(client, [(pattern * scale).tolist()], exact=True)
    assert answer.status_code == 200, answer.text
    cosines = stored @ vector / np.linalg.norm(vector) / np.linalg.norm(stored, axis=1)
    best = np.sort(cosines.reshape(session.atlas.catalogue.count, -1).max(axis=1))[::-1][:5]
    (page,) = answer.json()["pages"]
    np.testing.assert_allclose([row["score"] for row in page["rows"]], best, atol=1e-6)


@pytest.mark.parametrize(
    "vector",
    [
        lambda width: [0.0] * width,
        lambda width: [1.0] * (width - 1),
        lambda width: [1.0] * (width + 1),
        lambda width: [],
        lambda width: [None] * width,
        lambda width: ["1.0"] * width,
        lambda width: [True] * width,
        lambda width: [[1.0]] * width,
        lambda width: [float("nan")] * width,
        lambda width: [float("inf")] * width,
        lambda width: [10**400] * width,
        lambda width: "1" * width,
        lambda width: {"0": 1.0},
        lambda width: 1.0,
    ],
    ids=[
        "zero",
        "short",
        "long",
        "empty",
        "null",
        "text",
        "bool",
        "nested",
        "nan",
        "inf",
        "huge",
        "a text",
        "map",
        "number",
    ],
)
def test_what_is_no_vector_is_refused_in_one_line(client: TestClient, session: Session, vector: Any) -> None:
    """Entry 25: 320 nulls are one fault, not 320."""
    answer = ask_nearest(client, [vector(session.atlas.manifest.embedding.width)] * 2)
    assert answer.status_code == 400, answer.text
    detail = answer.json()["detail"]
    assert len(detail) < 300
    assert detail.count(";") <= 1, detail


def test_a_component_of_one_pixel_patches_has_as_many_as_channels(client: TestClient) -> None:
    rows = client.get(f"{UNIT}/eigen?size=1&components=9").json()["rows"]
    assert [row["component"] for row in rows] == [0, 1, 2, 3]
