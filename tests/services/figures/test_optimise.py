"""Every objective by command line, Python and API: one set of words, the same pixels, judged where that is possible."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import unitscope
from tests.services.server.test_jobs import JOBS, ended
from tests.unitscope.test_cli import invoke
from unitscope_pipelines.derived.visuals import faulty_visuals
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout
from unitscope_schemas.errors import NotFoundError

VECTOR = [0.1 * place - 0.7 for place in range(16)]
WISHES = [
    {"units": ["_blocks.0:3"], "objective": "-channel"},
    {"units": ["_blocks.0:3"], "count": 2, "start": "grey", "seed": 4},
    {"units": ["282"], "objective": "class"},
    {"units": ["tiger cat"], "objective": "-class", "recipe": "none"},
    {"units": ["_blocks.0"], "objective": "direction", "direction": VECTOR},
]


@pytest.fixture(autouse=True)
def unstored(tiny_atlas: Path) -> Iterator[None]:
    """Each test begins and ends without stored pictures."""
    shutil.rmtree(tiny_atlas / layout.VISUALS, ignore_errors=True)
    yield
    shutil.rmtree(tiny_atlas / layout.VISUALS, ignore_errors=True)


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: wish.get("objective", "diverse"))
def test_one_wish_gives_one_picture_by_every_way_to_ask(
    wish: dict[str, Any], client: TestClient, tiny_atlas: Path, tmp_path: Path
) -> None:
    taken = client.post(JOBS, json={"kind": "optimise", "atlas": "tiny", "steps": 2, **wish})
    job = ended(client, taken.headers["location"])
    assert job["state"] == "done", job["problem"]
    by_api = [client.get(address).content for address in job["results"]]
    linked = client.get(job["results"][0].rpartition("/")[0]).json()["rows"]
    assert sorted(row.pop("url") for row in linked) == sorted(job["results"])
    listed = linked
    assert faulty_visuals(store_of(tiny_atlas)) == {}

    shutil.rmtree(tiny_atlas / layout.VISUALS)
    atlas = unitscope.open_atlas(str(tiny_atlas))
    (unit,) = wish["units"]
    rows = atlas.optimise(unit, steps=2, **{name: value for name, value in wish.items() if name != "units"})
    by_python = [atlas.visualisation(row["unit"], row["id"]) for row in rows.to_pylist()]
    assert by_python == by_api

    shutil.rmtree(tiny_atlas / layout.VISUALS)
    words = [unit]
    for name, value in wish.items():
        if name == "direction":
            np.save(tmp_path / "vector.npy", np.array(value, np.float32))
            value = tmp_path / "vector.npy"
        words += [] if name == "units" else [f"--{name}", value]
    done = invoke("optimise", tiny_atlas, *words, "--steps", 2, "--json", "--out", tmp_path / "out")
    assert json.loads(done.stdout)["rows"] == listed
    assert sorted(path.read_bytes() for path in (tmp_path / "out").iterdir()) == sorted(by_api)


def test_what_the_atlas_does_not_record_has_no_maximum_and_says_so(tiny_atlas: Path) -> None:
    atlas = unitscope.open_atlas(str(tiny_atlas))
    for unit, how in (("282", {"objective": "class"}), ("_blocks.0", {"objective": "direction", "direction": VECTOR})):
        (row,) = atlas.optimise(unit, steps=1, **how).to_pylist()
        assert (row["corpus_maximum"], row["percentile"]) == (None, None)
        assert "no corpus maximum" in row["note"]
        assert atlas.visualisations(row["unit"]).to_pylist() == [row]
    with pytest.raises(NotFoundError, match="no unit that this atlas records"):
        atlas.visualisations("_fc:1")


def test_a_direction_is_written_as_numbers_in_either_file(tiny_atlas: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(VECTOR))
    (tmp_path / "b.json").write_text(json.dumps(VECTOR))
    ids = set()
    for name in ("a.npy", "b.json"):
        words = ["_blocks.0", "--objective", "direction", "--direction", tmp_path / name, "--steps", 1, "--json"]
        ids.add(json.loads(invoke("optimise", tiny_atlas, *words).stdout)["rows"][0]["id"])
    assert len(ids) == 1
    (tmp_path / "c.npy").write_text("none")
    refused = invoke("optimise", tiny_atlas, "_blocks.0", "--direction", tmp_path / "c.npy")
    assert "cannot be read" in str(refused.exception)
