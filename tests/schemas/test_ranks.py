"""What ranks say of a unit, each beside its plain formula."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitscope_schemas.ranks import are_exemplars, jaccard, percentile, percentiles, untied_count

UNITS = st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), max_size=8), max_size=4)


@given(UNITS, st.integers(0, 9))
def test_exemplars_stand_above_the_first_image_that_is_none(peaks: list[list[float]], most: int) -> None:
    ranked = [sorted(unit, reverse=True) for unit in peaks]
    units = np.array([number for number, unit in enumerate(ranked) for _ in unit], np.int32)
    activations = np.array([value for unit in ranked for value in unit], np.float32)
    plain = [
        rank < most and (len(unit) <= most or value > unit[most]) for unit in ranked for rank, value in enumerate(unit)
    ]
    assert are_exemplars(units, activations, most).tolist() == plain
    for number, unit in enumerate(ranked):
        of_unit = np.array(plain, bool)[units == number]
        assert untied_count(np.array(unit, np.float32), most) == of_unit.sum()


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_jaccard_is_what_both_have_over_what_either_has(a: set[int], b: set[int]) -> None:
    share = jaccard(np.array([len(a & b)]), np.array([len(a)]), len(b))[0]
    assert np.isnan(share) if not a | b else share == len(a & b) / len(a | b)


def test_a_percentile_counts_the_image_itself_and_its_equals() -> None:
    peaks = np.array([3.0, 2.0, 2.0, 1.0])
    above = np.array([int((peaks > peak).sum()) for peak in peaks])
    plain = [float((peaks <= peak).mean()) for peak in peaks]
    assert percentiles(above, len(peaks)).tolist() == pytest.approx(plain)
    assert [percentile(int(count), len(peaks)) for count in above] == percentiles(above, len(peaks)).tolist()


def test_percentiles_are_the_nearest_numbers_to_their_fractions() -> None:
    """Entry 31: 7 of 10 images above leave 0.3, not 0.30000000000000004."""
    assert 1 - 7 / 10 != 0.3, "what it was"
    for count in (*range(1, 130), 1000, 999_999):
        above = np.arange(min(count, 200) + 1)[: count + 1]
        fractions = [float(Fraction(count - number, count)) for number in above.tolist()]
        assert percentiles(above, count).tolist() == fractions
        assert [percentile(number, count) for number in above.tolist()] == fractions
