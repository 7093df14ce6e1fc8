"""The life of an atlas in random order: what it answers is at all times what a fresh one of the same pictures would."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from starlette.testclient import TestClient

from tests.networks import write_networks
from tests.pictures import write_corpus
from tests.services.conftest import ORIGIN
from tests.tables import contents, difference, manifest_of
from unitscope_pipelines.indexing.compaction import compact
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.sealing.versions import collect, sealed_versions
from unitscope_pipelines.indexing.upkeep import remove, restore, revert
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches
from unitscope_services.web.app import Settings, create_app

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

UNITS = (UnitId("conv@0", 2), UnitId("conv@1", 5))
PICTURES = 12
EXAMPLES, STEPS = 5, 20
Row = tuple[str, float]
Ids = frozenset[str]


@dataclass
class Place:
    """All pictures with their ids, how a network sees each, and folders for lives."""

    folder: Path
    network: Path
    pictures: dict[str, str]
    rows: dict[UnitId, list[Row]]

    def config(self, corpus: Path, atlas: Path) -> IndexConfig:
        return IndexConfig(
            corpus=str(corpus),
            atlas=str(atlas),
            model=f"file:{self.network}:twice",
            weights="random:0",
            trust_code=True,
            layers=("conv@*",),
            batch_size=4,
            shard_size=2,
            workers=1,
            field_exemplars=0,
            replace=True,
        )

    def command(self, corpus: Path, atlas: Path) -> list[str]:
        model = ["--model", f"file:{self.network}:twice", "--weights", "random:0", "--trust-code", "--layers", "conv@*"]
        small = ["--batch-size", "4", "--shard-size", "2", "--field-exemplars", "0", "--workers", "1", "--replace"]
        return [sys.executable, "-m", "unitscope", "index", str(corpus), "--atlas", str(atlas), *model, *small]


def rows_of(atlas: Path, unit: UnitId) -> list[Row]:
    page = patches(Atlas(atlas), unit, TopQuestion(k=100, duplicates="expand"))
    return [(row.image_id, row.activation) for row in page.rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Place:
    folder = tmp_path_factory.mktemp("lives")
    corpus, network = write_corpus(folder / "all", PICTURES), write_networks(folder)
    shutil.rmtree(corpus / "copies")
    (corpus / "stripes" / "truncated.jpg").unlink()
    found = Place(folder, network, {}, {})
    index(found.config(corpus, folder / "whole"), lambda _: None)
    listed = contents(folder / "whole")["images"]
    found.pictures = dict(zip(listed["path"], listed["image_id"], strict=True))
    found.rows = {unit: rows_of(folder / "whole", unit) for unit in UNITS}
    assert len(found.pictures) == PICTURES
    return found


class Life(RuleBasedStateMachine):
    """An atlas, its pictures and a server, and what they should hold."""

    lives: Iterator[int] = count()

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        folder = place.folder / f"life-{next(self.lives)}"
        self.corpus, self.atlas = folder / "corpus", folder / "atlas"
        self.files: set[str] = set()
        for name in sorted(place.pictures)[::2]:
            self.put(name)
        self.versions: dict[str, tuple[Ids, Ids]] = {}
        self.run()
        settings = Settings(atlases=(self.atlas,), corpora=(str(self.corpus),))
        self.client = TestClient(create_app(settings), ORIGIN)
        self.client.__enter__()

    def teardown(self) -> None:
        self.client.__exit__(None, None, None)
        self.make_compact()
        left, _ = self.versions[self.version]
        for name, image in self.place.pictures.items():
            self.put(name) if image in left else (self.corpus / name).unlink(missing_ok=True)
        fresh = self.atlas.parent / "fresh"
        index(self.place.config(self.corpus, fresh), lambda _: None)
        assert difference(contents(fresh), contents(self.atlas)) == []
        assert verify(self.atlas, sample=1, seed=0, trust_code=True).faults == []

    @property
    def version(self) -> str:
        return manifest_of(self.atlas).version

    @property
    def out(self) -> Ids:
        """The ids of the images that were taken out, and stay out."""
        return self.versions[self.version][1] if self.versions else frozenset()

    def put(self, name: str) -> None:
        (self.corpus / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.place.folder / "all" / name, self.corpus / name)
        self.files.add(name)

    def of_files(self) -> Ids:
        return frozenset(self.place.pictures[name] for name in self.files)

    def sealed(self, left: Ids, out: Ids) -> None:
        """Note what the present version should answer with, and what is out of it."""
        self.versions[self.version] = (left, out)

    def run(self) -> None:
        out = self.out
        index(self.place.config(self.corpus, self.atlas), lambda _: None)
        self.sealed(self.of_files() - out, out)

    def a_name(self, data: st.DataObject, names: set[str]) -> str:
        return data.draw(st.sampled_from(sorted(names)))

    @rule()
    def index_again(self) -> None:
        self.run()

    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        if missing := set(self.place.pictures) - self.files:
            self.put(self.a_name(data, missing))
            self.run()

    @rule(data=st.data())
    def delete_a_file(self, data: st.DataObject) -> None:
        if len(self.files) > 2:
            name = self.a_name(data, self.files)
            (self.corpus / name).unlink()
            self.files.remove(name)
            self.run()

    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        os.utime(self.corpus / self.a_name(data, self.files))
        self.run()

    @rule(data=st.data())
    def take_out(self, data: st.DataObject) -> None:
        left, out = self.versions[self.version]
        if len(left) > 2:
            image = data.draw(st.sampled_from(sorted(left)))
            remove(self.atlas, [image])
            self.sealed(left - {image}, out | {image})

    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        left, out = self.versions[self.version]
        if out:
            image = data.draw(st.sampled_from(sorted(out)))
            waiting = {found.image_id for found in restore(self.atlas, [image]).waiting}
            self.sealed(left | {image} - waiting, out - {image})

    @rule()
    def make_compact(self) -> None:
        left, out = self.versions[self.version]
        compact(self.atlas, 1, lambda _: None)
        self.sealed(left, out)

    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        chosen, out = data.draw(st.sampled_from(sealed_versions(self.atlas))), self.out
        scanned = version_images(chosen, store_of(self.atlas), ["image_id"])
        revert(self.atlas, chosen.version)
        self.sealed(frozenset(scanned["image_id"].to_pylist()) - out, out)

    @rule(keep=st.integers(1, 3))
    def collect_garbage(self, keep: int) -> None:
        collect(self.atlas, keep)

    @precondition(lambda self: len(self.files) < PICTURES)
    @rule(data=st.data(), seconds=st.floats(3, 12))
    def kill_a_run(self, data: st.DataObject, seconds: float) -> None:
        self.put(self.a_name(data, set(self.place.pictures) - self.files))
        before, out = self.version, self.out
        process = subprocess.Popen(
            self.place.command(self.corpus, self.atlas), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if self.version != before:
            self.sealed(self.of_files() - out, out)

    @invariant()
    def answers_are_those_of_the_pictures_that_are_left(self) -> None:
        left, _ = self.versions[self.version]
        for unit, every in self.place.rows.items():
            right = [(image, value) for image, value in every if image in left]
            assert rows_of(self.atlas, unit) == right
            answer = self.client.get(
                f"/api/v1/atlases/atlas/layers/{unit.layer}/units/{unit.channel}/patches?k=100&duplicates=expand"
            ).json()
            assert [(row["image_id"], row["activation"]) for row in answer["rows"]] == right


def test_answers_are_those_of_a_fresh_index_whatever_was_done_and_killed(place: Place) -> None:
    run_state_machine_as_test(
        lambda: Life(place),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
