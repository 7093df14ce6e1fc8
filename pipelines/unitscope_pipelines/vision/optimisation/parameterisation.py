"""Parameterisations of optimised pictures by pixels, or by a spectrum in decorrelated colours; and their starts."""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, UInt8
from torch import Tensor

from unitscope_schemas.errors import UsageError

NOISE, GREY = "noise", "grey"
"""Names of the starts that are no pictures."""

Pictures = Float[Tensor, "image channel row col"]
"""Pictures of values from 0 to 1, or differences of such values."""

COLOUR = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
"""Root of the covariance of colours over ImageNet, as lucid measured it: brightness, then two colour contrasts."""
_SPECTRUM_SCALE = 0.25
"""Factor by which a spectrum of deviation 1 fills the range of colours, as in lucid."""
_FOURIER_NOISE = 0.01
"""Deviation of the first spectrum's noise, as in lucid."""
_PIXEL_NOISE = 10 / 255
"""Deviation of the first pixels' noise, as in Yosinski's toolbox."""
_INSIDE = 1e-3
"""Distance that a colour keeps from black and white, where the sigmoid has no inverse."""


@dataclass(frozen=True)
class Start:
    """The start of optimising: seeded noise, the parameterisation's zero, or a picture as the network sees it."""

    name: str = NOISE
    """`noise`, `grey`, or a name of the picture."""
    picture: UInt8[Tensor, "channel row col"] | None = None


class Pixels:
    """A parameterisation by the pixels themselves, as differences to the mean colour in units of the whole range."""

    def __init__(self, values: Pictures, mean: Float[Tensor, " channel"]) -> None:
        self.values = values.clone().requires_grad_()
        self.mean = mean[:, None, None]

    def pictures(self) -> Pictures:
        """Return the pictures that the pixels stand for."""
        return self.values + self.mean


class Fourier:
    """A parameterisation by a spectrum whose frequencies weigh alike (Olah et al. 2017).

    Where there are three colours, they are decorrelated.
    """

    def __init__(self, spectrum: Complex[Tensor, "image channel row half"], width: int) -> None:
        self.values = torch.view_as_real(spectrum).clone().requires_grad_()
        self._size = spectrum.shape[2], width
        self._weights = frequency_weights(*self._size).to(spectrum.device)

    def pictures(self) -> Pictures:
        """Return the pictures that the spectrum stands for."""
        spectrum = torch.view_as_complex(self.values) * self._weights
        waves = torch.fft.irfft2(spectrum, s=self._size, norm="ortho") * _SPECTRUM_SCALE
        return correlated(waves).sigmoid()


Parameterisation = Pixels | Fourier
"""Variables (`values`) and the pictures that they stand for (`pictures()`, differentiable)."""


def first_pixels(
    start: Start, shape: torch.Size, mean: Float[Tensor, " channel"], generator: torch.Generator
) -> Pictures:
    """Return the first values of `Pixels` for pictures of this shape; raise UsageError for an unknown start."""
    if start.picture is not None:
        return _given(start.picture, shape) - mean[:, None, None]
    return _PIXEL_NOISE * torch.randn(shape, generator=generator) if _is_noise(start) else torch.zeros(shape)


def first_spectrum(
    start: Start, shape: torch.Size, generator: torch.Generator
) -> Complex[Tensor, "image channel row half"]:
    """Return the first spectrum of `Fourier` for pictures of this shape; raise UsageError for an unknown start."""
    if start.picture is not None:
        return spectrum_of(_given(start.picture, shape))
    count, channels, rows, cols = shape
    noise = _FOURIER_NOISE * torch.randn(count, channels, rows, cols // 2 + 1, 2, generator=generator)
    return torch.view_as_complex(noise if _is_noise(start) else torch.zeros_like(noise))


def spectrum_of(pictures: Pictures) -> Complex[Tensor, "image channel row half"]:
    """Return the spectrum of given pictures; their blackest and whitest pixels become a little greyer."""
    logits = torch.logit(pictures.clamp(_INSIDE, 1 - _INSIDE))
    waves = correlated(logits, inverse=True) / _SPECTRUM_SCALE
    spectrum: Tensor = torch.fft.rfft2(waves, norm="ortho") / frequency_weights(*pictures.shape[2:])
    return spectrum


def frequency_weights(rows: int, cols: int) -> Float[Tensor, "row half"]:
    """Return one over each frequency of a real spectrum, in cycles per pixel.

    The constant counts as one cycle over the longer side.
    """
    vertical, horizontal = torch.fft.fftfreq(rows)[:, None], torch.fft.rfftfreq(cols)[None]
    frequency = (vertical.square() + horizontal.square()).sqrt()
    weights: Tensor = 1 / frequency.clamp(min=1 / max(rows, cols))
    return weights


def correlated(values: Pictures, inverse: bool = False) -> Pictures:
    """Return decorrelated values as the colours they stand for, or with `inverse` the other way round.

    Pictures of another number of channels than three stay as they are.
    """
    if values.shape[1] != len(COLOUR):
        return values
    mixing = (COLOUR / COLOUR.norm(dim=0).max()).to(values.device)
    mixed: Tensor = torch.einsum("ij,njrc->nirc", torch.linalg.inv(mixing) if inverse else mixing, values)
    return mixed


def _given(picture: UInt8[Tensor, "channel row col"], shape: torch.Size) -> Pictures:
    """Return copies of a picture in values from 0 to 1; raise UsageError if it has another shape."""
    if picture.shape != shape[1:]:
        raise UsageError(f"the start has the shape {tuple(picture.shape)}; the network takes {tuple(shape[1:])}")
    return (picture.float() / 255).expand(shape).contiguous()


def _is_noise(start: Start) -> bool:
    """Return whether a start without a picture is noise; raise UsageError for an unknown one."""
    if start.name not in (NOISE, GREY):
        raise UsageError(f"start {start.name!r} is unknown; there are {NOISE}, {GREY} and pictures of the corpus")
    return start.name == NOISE
