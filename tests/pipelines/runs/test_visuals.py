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

from unitscope_pipelines.derived.optimise import make_plan
from unitscope_pipelines.derived.visuals import read_visual
from unitscope_pipelines.runs.visuals import optimise_units, project_units
from unitscope_pipelines.vision.optimisation.optimisation import OptimisationSettings
from unitscope_pipelines.vision.optimisation.recipes import recipe
from unitscope_schemas import layout
from unitscope_schemas.progress import Progress
from unitscope_schemas.questions import ProjectQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.figures.project import asked_exemplars, project_plan, projections
from unitscope_services.queries.session import Session
from unitscope_services.queries.unit_selection import chosen_units

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
    plan = make_plan(atlas.manifest, atlas.store, OptimisationSettings(recipe("olah2017", steps=2)), "unit", "cpu")
    told: list[Progress] = []
    first = list(optimise_units(plan, UNITS[:2], told.append, workers=1))
    before = written(atlas.root)
    again = list(optimise_units(plan, UNITS, told.append, workers=1))
    assert [visual.key.target for visual in again] == UNITS
    assert again[:2] == sorted(first, key=lambda visual: visual.key.channel)
    assert {name: time_ns for name, time_ns in written(atlas.root).items() if name in before} == before
    assert [(one.done, one.total, one.unit) for one in told[-3:]] == [(2, 3, "units"), (1, 2, "steps"), (2, 2, "steps")]


def test_units_are_chosen_by_name_by_layer_and_by_how_they_stand_out(atlas: Atlas) -> None:
    def chosen(*units: str, top: int | None = None) -> list[UnitId]:
        return chosen_units(atlas, units, top)

    rows = atlas.units("_blocks.5").to_pylist()
    live = [row for row in rows if row["status"] == "live"]
    assert chosen("_blocks.5") == [UnitId("_blocks.5", row["unit"]) for row in live]
    best = sorted(live, key=lambda row: -(row["maximum"] - row["mean"]) / row["std"])[:2]
    assert set(chosen("_blocks.5", top=2)) == {UnitId("_blocks.5", row["unit"]) for row in best}
    assert {unit.layer for unit in chosen("_blocks.*", top=1)} == {"_blocks.0", "_blocks.5", "_blocks.15"}
    assert chosen("_blocks.5:7", "_blocks.5:7") == [UnitId("_blocks.5", 7)]


def test_projections_of_many_units_are_those_of_each_and_none_is_made_twice(atlas: Atlas, ray_session: None) -> None:
    session, units = Session(atlas.root), [UnitId("_blocks.0", channel) for channel in range(4)]
    alone = {
        row.id: row
        for unit in units[:2]
        for row in projections(session, unit, ProjectQuestion(method="guided", k=2)).rows
    }
    plan = project_plan(session, "guided", [unit.layer for unit in units])
    wanted = asked_exemplars(atlas, units, 2)
    before, told = written(atlas.root), list[Progress]()
    made = list(project_units(plan, wanted, told.append, workers=1))
    assert [visual.key.target for visual in made[:4]] == [unit for unit in units[:2] for _ in range(2)]
    assert {visual.key.id for visual in made[:4]} == set(alone)
    assert {name: time_ns for name, time_ns in written(atlas.root).items() if name in before} == before
    assert [(one.done, one.total, one.unit) for one in told] == [(2, 4, "units"), (3, 4, "units"), (4, 4, "units")]
    for visual in made[4:]:
        name = layout.visual(*visual.key.target, visual.key.id)
        (atlas.root / name).unlink()
    again = [
        row.id for unit in units[2:] for row in projections(session, unit, ProjectQuestion(method="guided", k=2)).rows
    ]
    assert sorted(again) == sorted(visual.key.id for visual in made[4:])
    for visual in made[4:]:
        assert read_visual(atlas.store, visual.key.target, visual.key.id).picture.sha256 == visual.picture.sha256


@pytest.mark.long
@pytest.mark.parametrize("words", [["optimise", "--steps", "20"], ["project", "-k", "40"]], ids=lambda words: words[0])
def test_a_killed_run_goes_on_where_it_was(words: list[str], atlas: Atlas) -> None:
    command = [sys.executable, "-m", "unitscope", words[0], str(atlas.root), "_blocks.0", *words[1:]]
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
    live = chosen_units(atlas, ["_blocks.0"])
    made = [row["unit"] for row in rows]
    assert 2 <= len(before) < len(made)
    assert list(dict.fromkeys(made)) == [str(unit) for unit in live]
    after = written(atlas.root)
    assert len(after) == len(made)
    assert {name: after[name] for name in before} == before
