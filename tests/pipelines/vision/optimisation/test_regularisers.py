"""Each regulariser, transform and colour or Fourier step beside its plain NumPy formula."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unitscope_pipelines.vision.optimisation import regularisers, transforms
from unitscope_pipelines.vision.optimisation.parameterisation import (
    COLOUR,
    Fourier,
    Pixels,
    correlated,
    frequency_weights,
    spectrum_of,
)
from unitscope_pipelines.vision.optimisation.recipes import RECIPES, Regularisation
from unitscope_pipelines.vision.optimisation.transforms import Movement

Array = NDArray[np.float32]
SHAPES = ((2, 3, 12, 9), (1, 1, 8, 11), (2, 5, 7, 7))


@pytest.fixture(params=SHAPES, ids=str)
def values(request: pytest.FixtureRequest) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(0, 0.3, request.param).astype(np.float32))


def close(found: torch.Tensor, wanted: Array) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_clipped_keeps_pixels_in_range(values: torch.Tensor) -> None:
    mean = torch.linspace(0.2, 0.8, values.shape[1])[:, None, None]
    plain = np.minimum(1, np.maximum(0, values.numpy() + mean.numpy())) - mean.numpy()
    close(regularisers.clipped(values, mean), plain)


def test_decayed_is_a_product(values: torch.Tensor) -> None:
    close(regularisers.decayed(values, 0.3), values.numpy() * 0.7)


@pytest.mark.parametrize("deviation", [0.5, 1.0, 1.7])
def test_blurred_is_a_sum_weighted_by_a_bell_curve_over_mirrored_pixels(values: torch.Tensor, deviation: float) -> None:
    plain = values.numpy().astype(np.float64)
    for axis in (2, 3):
        reach = min(int(4 * deviation + 0.5), plain.shape[axis] - 1)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
        padding = [(0, 0)] * 4
        padding[axis] = (reach, reach)
        wide = np.pad(plain, padding, mode="reflect")
        length = plain.shape[axis]
        shifted = [np.take(wide, range(start, start + length), axis) for start in range(2 * reach + 1)]
        plain = sum(weight * part for weight, part in zip(weights / weights.sum(), shifted, strict=True))
    close(regularisers.blurred(values, deviation), plain)


def test_small_values_become_zero(values: torch.Tensor) -> None:
    plain = values.numpy().copy()
    for picture in plain:
        picture[np.abs(picture) < np.percentile(np.abs(picture), 40)] = 0
    close(regularisers.without_small_values(values, 40.0), plain)


def test_pixels_of_small_norm_become_zero(values: torch.Tensor) -> None:
    plain = values.numpy().copy()
    for picture in plain:
        norms = np.sqrt((picture**2).sum(0))
        picture[:, norms < np.percentile(norms, 30)] = 0
    close(regularisers.without_small_norms(values, 30.0), plain)


def test_pixels_of_small_contribution_become_zero(values: torch.Tensor) -> None:
    gradient = torch.from_numpy(np.random.default_rng(2).normal(size=values.shape).astype(np.float32))
    plain = values.numpy().copy()
    for picture, slope in zip(plain, gradient.numpy(), strict=True):
        contribution = np.abs((picture * slope).sum(0))
        picture[:, contribution < np.percentile(contribution, 90)] = 0
    close(regularisers.without_small_contributions(values, gradient, 90.0), plain)


def test_pictures_get_the_norm_that_is_asked_for(values: torch.Tensor) -> None:
    plain = values.numpy() * 0.2 / np.sqrt((values.numpy() ** 2).mean((1, 2, 3), keepdims=True))
    close(regularisers.with_contrast(values, 0.2), plain)


def test_regularisers_come_in_the_toolbox_order(values: torch.Tensor) -> None:
    figures = Regularisation(
        decay=0.1,
        blur_px=0.5,
        blur_every=4,
        small_value_percent=10,
        small_norm_percent=20,
        small_contribution_percent=30,
    )
    gradient = torch.ones_like(values)
    plain = regularisers.blurred(values * 0.9, 0.5)
    plain = regularisers.without_small_norms(regularisers.without_small_values(plain, 10.0), 20.0)
    assert torch.equal(
        regularisers.regularised(values, gradient, figures, step=4),
        regularisers.without_small_contributions(plain, gradient, 30.0),
    )
    later = regularisers.regularised(values, gradient, figures, step=5)
    assert not torch.equal(regularisers.regularised(values, gradient, figures, step=4), later)


def test_the_four_sets_of_the_paper_are_those_of_its_table() -> None:
    rows = [
        (one.decay, one.blur_px, one.blur_every, one.small_norm_percent, one.small_contribution_percent)
        for one in (RECIPES[f"yosinski2015{name}"].regularisation for name in ("-a", "-b", "", "-d"))
    ]
    assert rows == [(0, 0.5, 4, 50, 0), (0.3, 0, 0, 20, 0), (0.0001, 1.0, 4, 0, 0), (0, 0.5, 4, 0, 90)]


def test_a_spectrum_is_weighted_transformed_mixed_and_squashed() -> None:
    generator = np.random.default_rng(3)
    for channels, rows, cols in ((3, 8, 10), (1, 9, 7), (4, 6, 6)):
        half = cols // 2 + 1
        parts = generator.normal(size=(2, channels, rows, half, 2)).astype(np.float32)
        spectrum = parts[..., 0] + 1j * parts[..., 1]
        frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.abs(np.fft.fftfreq(cols))[None, :half])
        weighted = spectrum / np.maximum(frequency, 1 / max(rows, cols))
        waves = np.fft.irfft2(weighted, (rows, cols)) * math.sqrt(rows * cols) / 4
        if channels == 3:
            mixing = COLOUR.numpy() / np.sqrt((COLOUR.numpy() ** 2).sum(0)).max()
            waves = np.stack([sum(mixing[i, j] * waves[:, j] for j in range(3)) for i in range(3)], 1)
        found = Fourier(torch.from_numpy(spectrum.astype(np.complex64)), cols).pictures()
        np.testing.assert_allclose(found.detach().numpy(), 1 / (1 + np.exp(-waves)), atol=1e-5)


def test_a_picture_comes_back_from_its_spectrum_and_from_its_pixels() -> None:
    pictures = 0.1 + 0.8 * torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Fourier(spectrum_of(pictures), 14).pictures().detach(), pictures, atol=1e-5, rtol=0)
    mean = torch.tensor([0.4, 0.5, 0.6])
    pixels = Pixels(pictures - mean[:, None, None], mean)
    torch.testing.assert_close(pixels.pictures().detach(), pictures)
    torch.testing.assert_close(correlated(correlated(pictures), inverse=True), pictures, atol=1e-5, rtol=0)
    assert frequency_weights(4, 6)[0, 0] == 6


def test_jitter_moves_whole_pixels() -> None:
    pictures = torch.rand(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    movements = transforms.affine(torch.tensor([[1.0, 2.0], [-2.0, 0.0]]), torch.zeros(2), torch.ones(2))
    wanted = torch.zeros_like(pictures)
    wanted[0, :, 1:, 2:] = pictures[0, :, :-1, :-2]
    wanted[1, :, :-2] = pictures[1, :, 2:]
    torch.testing.assert_close(transforms.moved(pictures, movements), wanted, atol=1e-5, rtol=0)


def test_a_picture_is_turned_and_enlarged_about_its_middle() -> None:
    picture = np.random.default_rng(4).random((11, 8)).astype(np.float32)
    angle, scale = 0.3, 1.2
    plain = np.zeros_like(picture)
    for row in range(11):
        for col in range(8):
            down, right = row - 5, col - 3.5
            from_col = (math.cos(angle) * right - math.sin(angle) * down) / scale + 3.5
            from_row = (math.sin(angle) * right + math.cos(angle) * down) / scale + 5
            top, left = math.floor(from_row), math.floor(from_col)
            for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= r < 11 and 0 <= c < 8:
                    plain[row, col] += picture[r, c] * (1 - abs(from_row - r)) * (1 - abs(from_col - c))
    movement = transforms.affine(torch.zeros(1, 2), torch.tensor([angle]), torch.tensor([scale]))
    found = transforms.moved(torch.from_numpy(picture)[None, None], movement)[0, 0]
    np.testing.assert_allclose(found.numpy(), plain, atol=1e-5)


def test_movements_stay_within_their_bounds_and_reach_them() -> None:
    drawn = transforms.draw(Movement(jitter_px=2), 500, torch.Generator().manual_seed(0))
    assert set(drawn[:, :, 2].flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert Movement(jitter_px=8, jitter_share=0.1).within(35).jitter_px == 3
    assert Movement(jitter_px=8, jitter_share=0.1).within(7).is_none
    assert Movement(scale=0.1, least_field_px=16).within(11).is_none
    assert Movement(scale=0.1, least_field_px=16).within(19).scale == 0.1
