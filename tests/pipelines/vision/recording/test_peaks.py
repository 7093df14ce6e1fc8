"""Each unit's peak is its maximum over all locations, at the first of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unitscope_pipelines.vision.recording.peaks import peaks
from unitscope_schemas.errors import ModelError


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_peak_is_the_first_maximum_in_row_order(images: int, units: int, rows: int, cols: int, seed: int) -> None:
    coarse = torch.randint(-3, 3, (images, units, rows, cols), generator=torch.Generator().manual_seed(seed)).float()
    for output in (coarse, coarse.to(memory_format=torch.channels_last)):
        found = peaks(output)
        flat = coarse.flatten(2).numpy()
        assert np.array_equal(found.activation, flat.max(axis=2))
        assert np.array_equal(found.location, flat.argmax(axis=2))


def test_peak_of_tokens_runs_over_tokens_not_channels() -> None:
    tokens = torch.zeros(2, 5, 3)
    tokens[0, 4, 1] = 2.0
    found = peaks(tokens)
    assert found.activation.shape == (2, 3)
    assert (found.activation[0, 1], found.location[0, 1]) == (2.0, 4)


def test_peak_of_a_vector_is_its_value() -> None:
    vector = torch.tensor([[-1.0, 3.0]])
    assert torch.equal(peaks(vector).activation, vector)
    assert torch.equal(peaks(vector).location, torch.zeros(1, 2, dtype=torch.int64))


def test_all_negative_maps_have_negative_peaks() -> None:
    assert peaks(torch.full((1, 2, 4, 4), -7.5)).activation.tolist() == [[-7.5, -7.5]]


def test_nan_anywhere_makes_the_peak_nan_of_that_unit_only() -> None:
    maps = torch.zeros(2, 2, 3, 3)
    maps[1, 0, 1, 1] = torch.nan
    assert torch.isnan(peaks(maps).activation).tolist() == [[False, False], [True, False]]


def test_other_shapes_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="video puts out 5 dimensions"):
        peaks(torch.zeros(1, 2, 3, 4, 5), "video")
