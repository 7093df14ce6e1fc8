"""Labels of units beside their plain formulas, and planted ones with the lift that they must have."""

from pathlib import Path

import numpy as np
import pytest

from tests import kin
from tests.kin import COLOURED, GREEN, GREY, RED, ZEROED
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.questions import LabelsQuestion, SelectiveQuestion, SelectivityQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.labels import labels, of_auc, of_share, selective_units, selectivity

COUNT = 2 * COLOURED + GREY


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    folder = tmp_path_factory.mktemp("selectivity")
    network = kin.write_network(folder)
    return kin.write_atlas(kin.write_pictures(folder / "pictures"), folder / "atlas", f"file:{network}:planted")


@pytest.fixture(scope="module")
def atlas(root: Path) -> Atlas:
    return Atlas(root)


def unit(channel: int) -> UnitId:
    return UnitId("conv", channel)


def test_a_share_has_the_interval_of_wilsons_formula() -> None:
    low, high = of_share(np.array([0, 7, 20]), 20)
    for count, found in zip((0, 7, 20), zip(low, high, strict=True), strict=True):
        shares = np.linspace(0, 1, 100_001)
        inside = shares[np.abs(shares - count / 20) <= 1.959964 * np.sqrt(shares * (1 - shares) / 20)]
        assert found == pytest.approx((inside.min(), inside.max()), abs=1e-4)


def test_an_area_has_an_interval_that_holds_it_and_narrows_with_more_images() -> None:
    widths = []
    for count in (3, 30, 300):
        low, high = of_auc(np.array([0.0, 0.5, 0.9, 1.0]), np.full(4, count), np.full(4, 4 * count))
        assert (low >= 0).all()
        assert (high <= 1).all()
        assert (low <= [0, 0.5, 0.9, 1]).all()
        assert (high >= [0, 0.5, 0.9, 1]).all()
        widths.append(high - low)
    assert (np.diff(widths, axis=0) < 0).all()
    assert (np.array(widths) > 0).all()


def test_an_area_of_a_half_has_the_interval_of_mann_and_whitneys_variance() -> None:
    inside, outside = 200, 300
    low, high = of_auc(np.array([0.5]), np.array([inside]), np.array([outside]))
    deviation = np.sqrt((inside + outside + 1) / (12 * inside * outside))
    assert (high - low)[0] == pytest.approx(2 * 1.96 * deviation, rel=0.02)


def test_a_planted_label_is_found_with_the_right_lift(atlas: Atlas) -> None:
    page = labels(atlas, unit(RED), LabelsQuestion(ranks=COLOURED))
    (row,) = page.rows
    assert (row.label, row.count, row.share, page.ranks) == ("red", COLOURED, 1.0, COLOURED)
    assert row.lift == pytest.approx(COUNT / COLOURED)
    assert row.lift_low == pytest.approx(COUNT / COLOURED * COLOURED / (COLOURED + 1.959964**2))
    assert row.lift_high == pytest.approx(row.lift)


def test_stored_labels_are_those_counted_over_as_many_ranks(atlas: Atlas) -> None:
    stored, counted = labels(atlas, unit(RED), LabelsQuestion()), labels(atlas, unit(RED), LabelsQuestion(ranks=100))
    assert [vars(row) for row in stored.rows] == [pytest.approx(vars(row)) for row in counted.rows]
    assert stored.rows[0].lift_low < stored.rows[0].lift < stored.rows[0].lift_high
    assert labels(atlas, unit(RED), LabelsQuestion(ranks=100_000)).ranks == COUNT
    with pytest.raises(UsageError, match="ranks: should be greater than or equal to 1, not 0"):
        labels(atlas, unit(RED), LabelsQuestion(ranks=0))


def test_selectivity_is_the_share_of_pairs_in_which_the_label_wins(atlas: Atlas) -> None:
    for channel in (RED, 7, ZEROED):
        images = np.concatenate([images for _, images in atlas.ranked(unit(channel)).images(0, COUNT - 1)])
        peaks = dict(zip(images.tolist(), atlas.ranked(unit(channel)).activations().tolist(), strict=True))
        named = {row.image: row.label for row in atlas.catalogue.rows(range(COUNT))}
        page = selectivity(atlas, unit(channel), SelectivityQuestion())
        assert page.images == COUNT
        assert {row.label for row in page.rows} == {"red", "green", "grey"}
        for row in page.rows:
            inside = np.array([peaks[image] for image, label in named.items() if label == row.label])
            outside = np.array([peaks[image] for image, label in named.items() if label != row.label])
            wins = (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2
            assert row.auc == pytest.approx(wins)
            assert row.mean == pytest.approx(inside.mean(), abs=1e-6)
            assert row.auc_low <= row.auc <= row.auc_high


def test_a_planted_label_wins_every_pair(atlas: Atlas) -> None:
    first = selectivity(atlas, unit(RED), SelectivityQuestion()).rows[0]
    assert (first.label, first.images, first.auc, first.auc_high) == ("red", COLOURED, 1.0, 1.0)
    assert 0.8 < first.auc_low < 1


def test_units_of_a_label_are_found_by_their_lift(atlas: Atlas) -> None:
    page = selective_units(atlas, SelectiveQuestion(label="green"))
    found = {(row.layer, row.channel): row for row in page.rows}
    assert ("conv", ZEROED) not in found
    assert len(found) == kin.UNITS + 6 - 1
    for row in page.rows:
        counted = {
            one.label: one for one in labels(atlas, UnitId(row.layer, row.channel), LabelsQuestion(ranks=100)).rows
        }
        assert row.count == (counted["green"].count if "green" in counted else 0)
        assert row.lift == pytest.approx(row.count / 100 * COUNT / COLOURED)
    lows = [row.lift_low for row in page.rows]
    assert lows == sorted(lows, reverse=True)
    assert found["conv", GREEN].count == COLOURED
    assert {row.layer for row in selective_units(atlas, SelectiveQuestion(label="green", layer="head")).rows} == {
        "head"
    }
    assert len(selective_units(atlas, SelectiveQuestion(label="green", k=3)).rows) == 3


def test_a_label_that_there_is_not_is_told_its_nearest(atlas: Atlas) -> None:
    with pytest.raises(NotFoundError, match="'gren'; there are green"):
        selective_units(atlas, SelectiveQuestion(label="gren"))
    with pytest.raises(NotFoundError, match="it has conv, head"):
        selective_units(atlas, SelectiveQuestion(label="green", layer="nowhere"))


def test_removed_images_count_no_more_where_labels_are_counted_now(root: Path) -> None:
    before = Atlas(root)
    gone = before.find_image("red/000.png").image_id
    remove(root, [gone])
    after = Atlas(root)
    (row,) = labels(after, unit(RED), LabelsQuestion(ranks=COLOURED - 1)).rows
    assert row.count == COLOURED - 1
    assert row.lift == pytest.approx((COUNT - 1) / (COLOURED - 1))
    assert selectivity(after, unit(RED), SelectivityQuestion()).images == COUNT - 1
    assert labels(after, unit(RED), LabelsQuestion()).stale_images == 1
