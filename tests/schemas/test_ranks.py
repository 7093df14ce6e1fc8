"""What ranks say of a unit, each beside its plain formula."""

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
