"""Labels of units beside their plain formulas, and planted ones with the lift that they must have."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests import kin
from tests.kin import COLOURED, GREEN, GREY, RED, ZEROED
from unitscope.cli import app
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.questions import (
    LabelsQuestion,
    SelectiveQuestion,
    SelectivityQuestion,
    TopQuestion,
    UnitsQuestion,
)
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.statistics import UnitStatistics
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.labels import labels, of_auc, of_share, selective_units, selectivity
from unitscope_services.queries.units import unit_page

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
    for channel in (RED, 7):
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


_SILENT_NETWORK = """
import torch
from torch import nn


class Silent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.copy_(torch.tensor([0.0, 2.0, -3.0, -9.0, 0.0, float("nan"), -1.0, 0.0]))
            self.conv.weight[3, 0] = 1.0  # never above zero, the nearer to it the redder
            self.conv.weight[4, 0] = 1.72e38  # overflows on white alone
            self.conv.weight[6, 0] = 1.0  # above one only on white
            self.conv.weight[7, 0] = 1.0
        self.relu = nn.ReLU()

    def forward(self, image):
        values = self.conv(image)
        shown = self.relu(values)
        seventh = torch.where(image[:, :1] > 1.9, torch.nan, 4.0)  # constant but on white
        return torch.cat([values[:, :6], shown[:, 6:7], seventh], 1)


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.silent = Silent()

    def forward(self, image):
        return self.silent(image)


def silent():
    return Whole(), {"input_size": (3, 8, 8), "crop_pct": 1.0, "mean": 0.5, "std": 0.25}
"""
_DEAD, _CONSTANT, _BELOW, _NEGATIVE, _OVERFLOWING, _NAN, _RARE, _ODD = range(8)
_PICTURES = 130


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """An atlas whose units are dead, constant, negative, not finite or hardly ever above zero."""
    folder = tmp_path_factory.mktemp("silent")
    (folder / "silent.py").write_text(_SILENT_NETWORK)
    for number in range(_PICTURES):
        label = "odd" if number % 2 else "even"
        (folder / "pictures" / label).mkdir(parents=True, exist_ok=True)
        level = number + 4 if number else 255
        Image.new("RGB", (8, 8), (level, number, 7)).save(folder / "pictures" / label / f"{number}.png")
    spec = f"file:{folder / 'silent.py'}:silent"
    return kin.write_atlas(folder / "pictures", folder / "atlas", spec, layers=("silent",))


def test_the_planted_units_have_the_status_that_is_expected_of_them(silent: Path) -> None:
    statuses = [one.status for one in Atlas(silent).unit_statistics("silent")]
    assert statuses == ["dead", "dead", "dead", "negative-only", "non-finite", "non-finite", "rare", "non-finite"]


@pytest.mark.parametrize("sort", ["positive_share", "-positive_share"])
def test_the_most_selective_units_are_not_those_that_never_act(silent: Path, sort: str) -> None:
    order = [row.channel for row in unit_page(Atlas(silent), "silent", UnitsQuestion(sort=sort)).rows]
    assert {*order[-5:]} == {_DEAD, _CONSTANT, _BELOW, _NEGATIVE, _NAN}
    assert len({*order}) == 8
    if sort == "positive_share":
        assert order[0] == _RARE


@pytest.mark.parametrize("channel", [_DEAD, _CONSTANT, _BELOW, _NAN, _ODD])
def test_units_whose_peaks_are_all_equal_have_no_labels_and_say_why(silent: Path, channel: int) -> None:
    atlas, asked = Atlas(silent), UnitId("silent", channel)
    one = {
        _DEAD: "never active: its peak is 0 on all 130 images",
        _CONSTANT: "constant: its peak is 2 on all 130 images",
        _BELOW: "constant: its peak is -3 on all 130 images",
        _NAN: "not a number or infinite on 130 images, which are left out",
        _ODD: "not a number or infinite on 1 images, which are left out; its peak is 4 on all 129 others",
    }[channel]
    for question in (LabelsQuestion(), LabelsQuestion(ranks=7), LabelsQuestion(quantile="0.5..1")):
        page = labels(atlas, asked, question)
        assert (page.rows, page.note) == ([], one)
    over_all = selectivity(atlas, asked, SelectivityQuestion())
    assert (over_all.rows, over_all.note) == ([], one)
    assert unit_page(atlas, "silent", UnitsQuestion()).rows[channel].top_label is None
    assert patches(atlas, asked, TopQuestion()).rows == []
    selective = selective_units(atlas, SelectiveQuestion(label="even"))
    assert channel not in [row.channel for row in selective.rows]
    stored = atlas.units("silent")["top_labels"].to_pylist()
    assert stored[channel] == []


@pytest.mark.parametrize(
    ("channel", "note"),
    [
        (_NEGATIVE, "never above zero: these are its least negative images"),
        (_OVERFLOWING, "not a number or infinite on 1 images, which are left out"),
    ],
)
def test_units_that_are_not_live_but_have_an_order_keep_their_labels_with_a_note(
    silent: Path, channel: int, note: str
) -> None:
    atlas, asked = Atlas(silent), UnitId("silent", channel)
    page = labels(atlas, asked, LabelsQuestion(ranks=11))
    assert page.note == note
    # white, 129, 128, …, 120; without white to 119
    counts = {"even": 6, "odd": 5} if channel == _NEGATIVE else {"odd": 6, "even": 5}
    assert {row.label: row.count for row in page.rows} == counts
    assert selectivity(atlas, asked, SelectivityQuestion()).note == note


def test_a_tie_at_the_last_counted_rank_is_said(silent: Path) -> None:
    page = labels(Atlas(silent), UnitId("silent", _RARE), LabelsQuestion())
    assert page.note == (
        "rare: above zero on 1 of 130 images; ranks from 2 to 100 have the same peak, 0, as images that are not "
        "counted: only the first 1 are told apart by the unit"
    )


def test_labels_that_an_older_atlas_stored_of_a_dead_unit_are_not_shown(silent: Path) -> None:
    row = Atlas(silent).units("silent").slice(_DEAD, 1)
    older = row.set_column(
        row.schema.get_field_index("top_labels"),
        row.schema.field("top_labels"),
        pa.array([[{"label": "odd", "count": 60, "share": 0.6, "lift": 1.2}]], row.schema.field("top_labels").type),
    )
    for statistics in (UnitStatistics.at(older, 0), UnitStatistics.rows(older)[0]):
        assert (statistics.telling_labels, statistics.top_label) == ([], None)


def test_the_command_says_why_a_dead_unit_has_no_labels(silent: Path) -> None:
    shown = CliRunner().invoke(app, ["labels", str(silent), f"silent:{_DEAD}", "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["rows"] == []
    assert "never active: its peak is 0 on all 130 images" in shown.stderr
