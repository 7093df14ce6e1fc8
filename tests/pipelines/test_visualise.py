"""Pictures of many units on Ray: none is made twice, even if a run is killed."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.optimised import make_plan
from pipelines.plan import Progress
from pipelines.vision.optimisation import Wish
from pipelines.vision.recipes import recipe
from pipelines.visualise import optimise_units
from schemas import layout
from schemas.units import UnitId
from schemas.visuals import OptimiseQuery
from services.atlas import Atlas
from services.optimising import chosen_units

UNITS = [UnitId("_blocks.0", channel) for channel in range(3)]


@pytest.fixture
def atlas(tiny_atlas: Path) -> Iterator[Atlas]:
    """The tiny atlas, before and after without stored pictures."""
    shutil.rmtree(tiny_atlas / layout.VISUALS, ignore_errors=True)
    yield Atlas(tiny_atlas)
    shutil.rmtree(tiny_atlas / layout.VISUALS, ignore_errors=True)


def written(root: Path) -> dict[str, int]:
    """When each stored picture's document was written."""
    return {path.name: path.stat().st_mtime_ns for path in (root / layout.VISUALS).rglob("*.json")}


def test_what_is_stored_is_told_at_once_and_not_made_again(atlas: Atlas, ray_session: None) -> None:
    plan = make_plan(atlas.manifest, atlas.root, Wish(recipe("olah2017", steps=2)), "unit", "cpu")
    told: list[Progress] = []
    first = list(optimise_units(plan, UNITS[:2], told.append, workers=1))
    before = written(atlas.root)
    again = list(optimise_units(plan, UNITS, told.append, workers=1))
    assert [visual.key.unit for visual in again] == UNITS
    assert again[:2] == sorted(first, key=lambda visual: visual.key.channel)
    assert {name: time_ns for name, time_ns in written(atlas.root).items() if name in before} == before
    assert [(one.done, one.total, one.unit) for one in told[-3:]] == [(2, 3, "units"), (1, 2, "steps"), (2, 2, "steps")]


def test_units_are_chosen_by_name_by_layer_and_by_how_they_stand_out(atlas: Atlas) -> None:
    def chosen(*units: str, top: int | None = None) -> list[UnitId]:
        return chosen_units(atlas, OptimiseQuery(units=units, top=top))

    rows = atlas.units("_blocks.5").to_pylist()
    live = [row for row in rows if row["status"] == "live"]
    assert chosen("_blocks.5") == [UnitId("_blocks.5", row["unit"]) for row in live]
    best = sorted(live, key=lambda row: -(row["maximum"] - row["mean"]) / row["std"])[:2]
    assert set(chosen("_blocks.5", top=2)) == {UnitId("_blocks.5", row["unit"]) for row in best}
    assert {unit.layer for unit in chosen("_blocks.*", top=1)} == {"_blocks.0", "_blocks.5", "_blocks.15"}
    assert chosen("_blocks.5:7", "_blocks.5:7") == [UnitId("_blocks.5", 7)]


@pytest.mark.long
def test_a_killed_run_goes_on_where_it_was(atlas: Atlas) -> None:
    command = [sys.executable, "-m", "unitscope", "optimise", str(atlas.root), "_blocks.0", "--steps", "20"]
    command += ["--workers", "1", "--json", "--progress", "json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(written(atlas.root)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(3)  # a worker may still be at its last picture
    before = written(atlas.root)
    rows = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["rows"]
    live = chosen_units(atlas, OptimiseQuery(units=("_blocks.0",)))
    assert 2 <= len(before) < len(live)
    assert [row["path"].split("/")[2] for row in rows] == [str(unit.channel) for unit in live]
    after = written(atlas.root)
    assert len(after) == len(live)
    assert {name: after[name] for name in before} == before
