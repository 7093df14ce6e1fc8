"""Ranks and statistics of units, each beside its plain formula."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.tables import manifest_of, ranked_parts
from unitscope_pipelines.indexing.ranking.ranker import Numbering, rank_peaks
from unitscope_pipelines.indexing.ranking.statistics import LabelLift, Labels, histogram, status, unit_statistics
from unitscope_schemas import tables

VALUES = arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.sampled_from([-2.5, -1.0, -0.0, 0.0, 0.5, 0.5000001, 3.0, np.nan, np.inf]),
)


def ranked_images(activation: np.ndarray) -> list[int]:
    """The images of the ranked table, which must hold the very bits of the peaks, but zero without a sign."""
    place = (np.arange(len(activation), dtype=np.int32) % 99 - 1) << 16 | 3
    order = np.random.default_rng(0).permutation(len(activation))
    table = rank_peaks(7, activation[order], place[order], Numbering.of(order))
    images = table["image"].to_pylist()
    assert table["rank"].to_pylist() == list(range(len(images)))
    assert table["activation"].to_numpy().tobytes() == (activation[images] + np.float32(0)).tobytes()
    assert table["row"].to_pylist() == [image % 99 - 1 for image in images]
    assert set(table["col"].to_pylist()) <= {3}
    return images


@given(VALUES)
def test_rank_is_by_activation_then_image_and_only_of_finite_values(activation: np.ndarray) -> None:
    finite = [number for number in range(len(activation)) if np.isfinite(activation[number])]
    assert ranked_images(activation) == sorted(finite, key=lambda number: (-activation[number], number))


def test_the_top_nine_of_a_hundred_thousand_uniform_values_are_exact() -> None:
    activation = np.random.default_rng(0).uniform(0, 1, 100_000).astype(np.float32)
    assert ranked_images(activation)[:9] == np.argsort(-activation.astype(np.float64), kind="stable")[:9].tolist()


@settings(deadline=None)
@given(VALUES)
def test_statistics_equal_their_plain_formulas(activation: np.ndarray) -> None:
    finite = np.sort(activation[np.isfinite(activation)])
    row = unit_statistics(0, finite[::-1], len(activation) - len(finite))
    assert row.image_count + row.nonfinite_count == len(activation)
    assert row.positive_count == int((finite > 0).sum())
    assert row.zero_count == int((finite == 0).sum())
    if len(finite):
        assert (row.minimum, row.maximum) == (finite[0], finite[-1])
        assert row.mean == float(np.mean(finite, dtype=np.float64))
        assert row.std == float(np.std(finite, dtype=np.float64))
        for share, knot in zip(tables.KNOT_SHARES, row.knots, strict=True):
            assert knot == finite[min(int(np.floor(share * len(finite))), len(finite) - 1)]


@settings(deadline=None)
@given(arrays(np.float32, st.integers(2, 300), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_a_histogram_of_sorted_values_equals_that_of_numpy(values: np.ndarray) -> None:
    values = np.sort(np.concatenate([values, np.linspace(values.min(), values.max(), 65, dtype=np.float32)]))
    if values[0] < values[-1]:
        expected, _ = np.histogram(values.astype(np.float64), bins=tables.HISTOGRAM_BINS)
        assert histogram(values).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("count", "ends"),
    [
        (0, [0]),
        (1, [0, 1]),
        (1_024, [0, 1_024]),
        (20_000, [0, 1_024, 20_000]),
        (100_000, [0, 1_024, 32_768, 65_536, 98_304, 100_000]),
    ],
)
def test_row_groups_are_a_few_first_ranks_more_and_the_rest(count: int, ends: list[int]) -> None:
    assert tables.group_ends(count) == ends


@pytest.mark.parametrize(
    ("values", "nonfinite", "expected"),
    [
        ([0.0, 0.0], 0, "dead"),
        ([2.0, 2.0], 0, "dead"),
        ([-3.0, -1.0], 0, "negative-only"),
        ([-1.0, 0.0], 0, "negative-only"),
        ([0.0] * 199 + [1.0], 0, "rare"),
        ([0.0, 1.0], 0, "live"),
        ([0.0, 1.0], 1, "non-finite"),
        ([], 3, "non-finite"),
    ],
)
def test_status_follows_from_the_peaks(values: list[float], nonfinite: int, expected: str) -> None:
    assert status(np.array(values, np.float32), nonfinite) == expected


def test_lift_is_the_share_among_first_ranks_over_the_share_of_the_corpus() -> None:
    labels = Labels(pa.chunked_array([pa.array([["cat"]] * 50 + [["dog"]] * 150)]))
    first = np.concatenate([np.arange(40), np.arange(100, 160)]).astype(np.int32)
    rows = labels.of_first_ranks(first)
    assert rows == [
        LabelLift("dog", count=60, share=0.6, lift=pytest.approx(0.8)),
        LabelLift("cat", count=40, share=0.4, lift=pytest.approx(1.6)),
    ]


def test_stored_statistics_equal_those_of_the_ranked_rows(tiny_atlas: Path) -> None:
    for entry in manifest_of(tiny_atlas).layers:
        units = pq.read_table(tiny_atlas / entry.units.path, partitioning=None).to_pylist()
        ranked = pa.concat_tables(
            pq.read_table(tiny_atlas / part.path, partitioning=None)
            for part in ranked_parts(manifest_of(tiny_atlas), entry.spec.name)
        )
        for row in units[::13]:
            values = ranked.filter(pa.compute.field("unit") == row["unit"])["activation"].to_numpy()
            counts, _ = np.histogram(values.astype(np.float64), bins=tables.HISTOGRAM_BINS)
            assert row["histogram"] == counts.tolist()
            assert row["image_count"] == len(values) == 40


def test_a_row_group_holds_ranks_of_one_unit(tiny_atlas: Path) -> None:
    for entry in manifest_of(tiny_atlas).layers:
        for part in ranked_parts(manifest_of(tiny_atlas), entry.spec.name):
            with pq.ParquetFile(tiny_atlas / part.path) as file:
                groups = [file.read_row_group(group)["unit"].unique() for group in range(file.num_row_groups)]
            assert all(len(units) == 1 for units in groups)
            assert len(groups) <= 16
