import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unitscope_pipelines.vision.recording.peaks import peaks
from unitscope_pipelines.vision.recording.recording import record
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


def test_recording_comes_before_an_inplace_module() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(inplace=True))
    with torch.no_grad():
        model[0].weight[:], model[0].bias[:] = 1.0, 0.0
        with record(model, ["0"], lambda _, output: output.clone()) as recorded:
            model(torch.full((1, 1, 2, 2), -3.0))
    assert recorded["0"].min() == -3.0


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twofold = nn.Conv2d(1, 1, 1, bias=False)
        with torch.no_grad():
            self.twofold.weight[:] = 2.0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.twofold(self.twofold(pixels))


def test_a_module_called_twice_has_two_recordings() -> None:
    model = Twice()
    with torch.no_grad(), record(model, ["twofold@0", "twofold@1"], lambda _, output: output.clone()) as recorded:
        for _ in range(2):
            model(torch.ones(1, 1, 1, 1))
        assert (recorded["twofold@0"].item(), recorded["twofold@1"].item()) == (2.0, 4.0)


def test_hooks_are_removed_even_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    with pytest.raises(RuntimeError), record(model, ["0"], lambda _, output: output):
        model(torch.zeros(1, 7, 1, 1))
    assert not model._forward_pre_hooks
    assert not model[0]._forward_hooks


def test_an_unknown_layer_is_refused_with_the_known_ones() -> None:
    with (
        pytest.raises(ModelError, match="no layer 'head'; it has 0"),
        record(nn.Sequential(nn.ReLU()), ["head"], print),
    ):
        pass
