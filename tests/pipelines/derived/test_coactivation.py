"""Co-activation and comparisons beside their plain formulas, and on channels whose kin is known."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import kin
from tests.kin import PLAIN, TWIN, ZEROED
from tests.nodes import Loopback, Nodes
from tests.tables import ranked_parts
from unitscope_pipelines.derived import coactivation as coactivation_job
from unitscope_pipelines.derived.coactivation import InProcess, LayerPair, SealedAtlas, find_coactivation, shared_sides
from unitscope_pipelines.derived.compare import Layers
from unitscope_pipelines.derived.compare import compare as compare_sealed
from unitscope_pipelines.derived.rank_profiles import (
    centred_ranks,
    correlations,
    read_profiles,
    shared_exemplars,
)
from unitscope_pipelines.indexing.sealing.versions import collect
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_pipelines.runs import coactivation as coactivation_run
from unitscope_pipelines.runs.coactivation import OnCluster
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas.answers.relations import Comparison, MatchRow
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.progress import Progress, Tell
from unitscope_schemas.ranks import untied_count
from unitscope_schemas.versions import read_version
from unitscope_services.atlas.atlas import Atlas

CONV = LayerPair("conv", "conv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """The pictures with an atlas of the planted network and one of the permuted one."""
    folder = tmp_path_factory.mktemp("kin")
    network = kin.write_network(folder)
    pictures = kin.write_pictures(folder / "pictures")
    for name in ("planted", "permuted"):
        kin.write_atlas(pictures, folder / name, f"file:{network}:{name}")
    return folder


def silent(done: int, total: int) -> None: ...


def compare(a: Path, b: Path, tell: Tell = silent, layers: Layers = (None, None)) -> Comparison:
    return compare_sealed(SealedAtlas.present(a), SealedAtlas.present(b), InProcess(tell), layers)


def plain_peaks(root: Path, layer: str) -> NDArray[np.float32]:
    """Peaks, unit × image, as questions read them."""
    manifest = read_version(store_of(root))
    entry = manifest.recorded(layer)
    peaks = np.full((entry.spec.units, manifest.stored_count), np.nan, np.float32)
    for part in ranked_parts(manifest, entry.spec.name):
        rows = pq.read_table(root / part.path, partitioning=None)
        peaks[rows["unit"].to_numpy(), rows["image"].to_numpy()] = rows["activation"].to_numpy()
    return peaks


def plain_ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean ranks from below, by counting."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_ranks_are_those_of_counting_and_sum_to_zero(values: list[int]) -> None:
    descending = np.sort(np.array(values, np.float32))[::-1]
    found = centred_ranks(descending)
    assert found.sum() == 0
    assert (found / 2 + (len(values) + 1) / 2).tolist() == plain_ranks(descending).tolist()


def test_no_unit_has_more_exemplars_than_stand_above_the_next_image() -> None:
    descending = np.array([9, 7, 7, 5, 0, 0, 0, 0], np.float32)
    assert [untied_count(descending, most) for most in range(9)] == [0, 1, 1, 3, 4, 4, 4, 4, 8]


def test_correlations_and_shared_exemplars_are_those_of_the_plain_formula(folder: Path) -> None:
    atlas = SealedAtlas.present(folder / "planted")
    side, other = shared_sides(atlas, atlas)
    profiles = read_profiles(side, atlas.layer("conv"), range(3))
    heads = read_profiles(other, atlas.layer("head"), range(1))
    ranks = [
        np.array([plain_ranks(unit) for unit in plain_peaks(atlas.store.address, layer)]) for layer in ("conv", "head")
    ]
    found = correlations(profiles, heads)
    live = [unit for unit in range(kin.UNITS) if unit != ZEROED]
    plain = np.corrcoef(ranks[0][live], ranks[1])[: len(live), len(live) :]
    np.testing.assert_allclose(found[live], plain, atol=1e-6)
    assert np.isnan(found[ZEROED]).all()
    shared = shared_exemplars(profiles, heads)
    tops = [[set(unit.argsort()[::-1][:12].tolist()) for unit in side] for side in ranks]
    assert shared[7, 3] == pytest.approx(len(tops[0][7] & tops[1][3]) / len(tops[0][7] | tops[1][3]))


def test_tiles_of_units_on_ray_change_nothing_and_nothing_stored_is_computed_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = find_coactivation(
        SealedAtlas.present(folder / "planted"), SealedAtlas.present(folder / "planted"), [CONV], InProcess(silent)
    )
    shutil.copytree(folder / "planted", tmp_path / "cut", ignore=shutil.ignore_patterns("kin"))
    monkeypatch.setattr(coactivation_job, "_TILE_BLOCKS", 1)
    monkeypatch.setattr(coactivation_run, "_PRODUCTS_IN_PROCESS", 0)
    told: list[Progress] = []
    cut = SealedAtlas.present(tmp_path / "cut")
    (tiled,) = find_coactivation(cut, cut, [CONV], OnCluster(told.append, 1))
    assert [(one.done, one.total) for one in told] == [(0, 9), (3, 9), (6, 9), (9, 9)]
    assert [sum(one.nodes.values()) for one in told] == [0, 3, 6, 9]
    assert repr(pq.read_table(folder / "planted" / whole).to_pydict()) == repr(
        pq.read_table(tmp_path / "cut" / tiled).to_pydict()
    )
    told.clear()
    find_coactivation(cut, cut, [CONV], OnCluster(told.append, 1))
    assert told == []


def test_the_twin_of_a_unit_correlates_to_one_and_a_dead_unit_with_none(folder: Path) -> None:
    (table,) = find_coactivation(
        SealedAtlas.present(folder / "planted"), SealedAtlas.present(folder / "planted"), [CONV], InProcess(silent)
    )
    found = np.array(pq.read_table(folder / "planted" / table)["correlation"].to_pylist())
    assert found[PLAIN, TWIN] == found[TWIN, PLAIN] == 1.0
    assert (np.diag(found)[: kin.UNITS] == 1.0).sum() == kin.UNITS - 1
    assert np.isnan(found[ZEROED]).all()


def test_two_identical_checkpoints_compare_at_one_however_they_were_indexed(folder: Path, tmp_path: Path) -> None:
    again = kin.write_atlas(
        folder / "pictures", tmp_path / "again", f"file:{folder / 'small_network.py'}:planted", shard_size=50
    )
    found = compare(folder / "planted", again, silent)
    assert found.shared_images == 120
    for row in found.rows:
        if (row.layer, row.channel) == ("conv", ZEROED):
            assert row.match is row.correlation is row.same_correlation is None
        else:
            assert row.correlation == row.overlap == row.same_correlation == row.same_overlap == 1.0
            assert row.match == (PLAIN if (row.layer, row.channel) == ("conv", TWIN) else row.channel)
    assert [(layer.units, layer.compared, layer.same_overlap) for layer in found.layers] == [(40, 39, 1), (6, 6, 1)]


def test_the_order_of_a_permuted_copy_is_recovered_completely(folder: Path) -> None:
    found = compare(folder / "permuted", folder / "planted", silent, ("conv", None))
    rows = {kin.ORDER[row.channel]: row for row in found.rows}
    for unit in set(range(kin.UNITS)) - {PLAIN, TWIN, ZEROED}:
        assert (rows[unit].match, rows[unit].correlation, rows[unit].overlap) == (unit, 1.0, 1.0)
        assert rows[unit].mutual
        assert rows[unit].margin is not None and rows[unit].margin > 0
    for unit in (PLAIN, TWIN):
        assert {rows[unit].match, rows[unit].runner_up} == {PLAIN, TWIN}
        assert rows[unit].margin == 0
    assert rows[ZEROED].match is None


def test_matches_are_those_of_a_plain_search(folder: Path) -> None:
    found = compare(folder / "planted", folder / "permuted", silent, ("conv", "head"))
    ranks = [
        np.array([plain_ranks(unit) for unit in plain_peaks(folder / name, layer)])
        for name, layer in (("planted", "conv"), ("permuted", "head"))
    ]
    for row in found.rows:
        if row.channel == ZEROED:
            continue
        plain = [float(np.corrcoef(ranks[0][row.channel], other)[0, 1]) for other in ranks[1]]
        first, second = sorted(range(len(plain)), key=lambda unit: -plain[unit])[:2]
        assert (row.match, row.runner_up) == (first, second)
        assert row.correlation == pytest.approx(plain[first], abs=1e-6)
        assert row.margin == pytest.approx(plain[first] - plain[second], abs=1e-6)
        assert row.same_correlation is None
    assert isinstance(found.rows[0], MatchRow)


def test_a_comparison_is_made_once_and_goes_with_its_version(folder: Path, tmp_path: Path) -> None:
    one, two = (Path(shutil.copytree(folder / name, tmp_path / name)) for name in ("planted", "permuted"))
    shutil.rmtree(one / "kin", ignore_errors=True)
    shutil.rmtree(one / "comparisons", ignore_errors=True)
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    first = compare(one, two, tell, ("conv", None))
    assert told == [(done, 3) for done in range(4)]
    told.clear()
    assert compare(one, two, tell, ("conv", None)) == first
    assert told == []
    removed = Atlas(one).find_image("red/000.png").image_id
    remove(one, [removed])
    second = compare(one, two, tell, ("conv", None))
    assert (second.shared_images, first.shared_images) == (119, 120)
    assert second.id != first.id
    gone = collect(one, keep=1).files
    assert any(first.id in path for path in gone)
    assert not any(second.id in path for path in gone)
    assert sorted(path.suffix for path in (one / "kin").iterdir()) == [".json", ".parquet"], "one table with its note"


def test_only_images_of_both_atlases_count(folder: Path, tmp_path: Path) -> None:
    network = f"file:{folder / 'small_network.py'}:planted"
    some = kin.write_atlas(folder / "pictures", tmp_path / "some", network, limit=50)
    found = compare(some, folder / "planted", silent, ("head", None))
    assert found.shared_images == found.a.images == 50
    assert found.b.images == 120
    assert {row.correlation for row in found.rows} == {1.0}
    peaks, more = plain_peaks(some, "head"), plain_peaks(folder / "planted", "head")
    assert more.shape[1] > peaks.shape[1]


def test_atlases_without_a_shared_image_or_layer_are_refused(folder: Path, tmp_path: Path, tiny_atlas: Path) -> None:
    with pytest.raises(UsageError, match="no layer has the same name"):
        compare(folder / "planted", tiny_atlas, silent)
    with pytest.raises(UsageError, match="no image in common"):
        compare(folder / "planted", tiny_atlas, silent, ("conv", "_blocks.5"))
    with pytest.raises(NotFoundError, match="it has conv, head"):
        compare(folder / "planted", folder / "permuted", silent, ("cnv", None))
    with pytest.raises(UsageError, match="give --layer too"):
        compare(folder / "planted", folder / "permuted", silent, (None, "conv"))


@pytest.mark.parametrize("images", [10, 1_000_000, 50_000_000])
def test_tiles_fit_their_memory_and_cover_every_block(folder: Path, images: int) -> None:
    entry = SealedAtlas.present(folder / "planted").layer("conv")
    entry = entry.model_copy(update={"spec": entry.spec.model_copy(update={"units": 80 * 16})})
    tiles = coactivation_job._tiles(CONV, entry, images)
    length = max(len(tile.blocks) for tile in tiles)
    assert length == 1 or 4 * 16 * length * images <= coactivation_job.TILE_BYTES
    assert [block for tile in tiles for block in tile.blocks] == list(range(80))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """A running cluster with one worker."""
    started = Nodes(tmp_path, Loopback())
    started.add()
    yield started
    started.stop()


def tables_in(atlas: Path) -> dict[str, int]:
    """When the table of each pair of layers was written."""
    return {path.name: path.stat().st_mtime_ns for path in (atlas / "kin").glob("*.parquet")}


@pytest.mark.long
def test_a_killed_run_on_a_cluster_keeps_the_pairs_of_layers_it_had_finished(
    nodes: Nodes, tiny_atlas: Path, tmp_path: Path
) -> None:
    derived = shutil.ignore_patterns("kin", "comparisons", "visuals")
    one, two, undisturbed = (
        Path(shutil.copytree(tiny_atlas, tmp_path / name, ignore=derived)) for name in ("one", "two", "undisturbed")
    )
    words = ["compare", str(one), str(two), "--address", nodes.address, "--json", "--progress", "none"]
    command = [sys.executable, "-m", "unitscope", *words]
    run = subprocess.Popen(command, env=nodes.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not tables_in(one):
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.001)
    run.send_signal(signal.SIGSTOP)  # the run itself writes the tables: no more come
    before = tables_in(one)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert 1 <= len(before) < 3
    again = subprocess.run(command, env=nodes.environment, capture_output=True, check=True)
    after = tables_in(one)
    assert len(after) == 3
    assert {name: after[name] for name in before} == before
    assert json.loads(again.stdout)["rows"] == compare(undisturbed, two).model_dump(mode="json")["rows"]
