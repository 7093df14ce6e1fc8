"""The model of an atlas, and how a picture becomes its input."""

from typing import Any, Literal

from unitscope_schemas.entries.entry import Entry
from unitscope_schemas.geometry import Size

DEFAULT_SPEC = "efficientnet-lite:0"
"""Spec of the model that is used unless another is named."""

Device = Literal["cpu", "cuda"]
"""Kinds of devices that forwards run on."""

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""Arithmetics of a forward: exact float32, and those that GPUs are faster at and that round more."""

TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 8e-2, "fp16": 2e-2}
"""Drift that other hardware may cause, relative to an activation or the layer's mean on the image.

For the coarse ones it is forty times what one product is rounded by: 2^-11, and 2^-9 for bf16.
"""


_SAME_PIXELS = {
    "torchcodec for plain JPEG, Pillow for all else": "torchvision for plain JPEG, Pillow for all else",
}
"""Decoders whose pixels are those of an earlier one, to the bit: atlases of either have one key."""


class Preprocessing(Entry):
    """How a picture becomes the network's input; part of the atlas key, decoder included.

    Resize so that the shorter side is `resize_px` with antialiased `interpolation` on 8-bit pixels, crop `input`
    from the centre, then `(pixel − mean) / std` per channel, pixels 0 to 255; transparent pixels show white.
    """

    resize_px: int
    input: Size
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoder: str = "torchcodec for plain JPEG, Pillow for all else"
    resizer: str = "torchvision.transforms.v2.functional.resize(antialias=True) on uint8 tensors, rounded to uint8"
    """Implementation of the resize: the same word stands for other pixels in other libraries, and in older ones."""
    normaliser: str = "(pixel - mean) / std in float32, pixels 0 to 255"
    value_range: tuple[float, float] | None = None
    """Values that become 0 and 255, of arrays, and TIFF of other than 1 or 3 channels; None for those of their type."""
    values: str = (
        "8-bit values as they are; in float32, 16-bit values / 257, and floating point values from 0 to 1 and truth "
        "values × 255; others are skipped"
    )
    """Rule by which values of arrays, and TIFF of other than 1 or 3 channels, become pixels from 0 to 255."""
    shown: tuple[int, int, int] | None = None
    """Channels that pictures show as red, green and blue; None for the first three."""

    squash: bool = False
    """Whether a picture is resized to the input itself, whatever its shape, instead of by its shorter side."""

    @property
    def shown_channels(self) -> tuple[int, ...]:
        """The channels that pictures show: one as grey, of two the second twice."""
        return self.shown or ((0,) if self.channels == 1 else (0, 1, min(2, self.channels - 1)))

    @property
    def digested(self) -> dict[str, Any]:
        """The fields that decide recorded values; later ones only where they differ from what always was, and a decoder
        by the name of the one that gave the same pixels before."""
        later = ("resizer", "normaliser", "value_range", "values", "shown", "squash")
        fields = self.model_dump(mode="json", exclude={name for name in later if _is_default(self, name)})
        return fields | {"decoder": _SAME_PIXELS.get(self.decoder, self.decoder)}

    @property
    def channels(self) -> int:
        """The count of colour channels of the network's input."""
        return len(self.mean)


def _is_default(entry: Entry, name: str) -> bool:
    return bool(getattr(entry, name) == type(entry).model_fields[name].default)


class ModelEntry(Entry):
    """The model that an atlas was recorded from."""

    spec: str
    """Name of the model, `SCHEME:NAME`."""
    weights: str
    """Source of the weights: `default`, `random:SEED` or a file."""
    weights_digest: str
    """SHA-256 over all weights."""
    latents: tuple[str, ...] = ()
    """Dictionaries hung on layers, `LAYER=file:PATH.py:FACTORY`."""
    code_digests: tuple[str, ...] = ()
    """SHA-256 of every file of the owner's code that the model was built with."""
    notes: tuple[str, ...] = ()
    """Sentences on how the weights were found in their file, and what was cast."""

    @property
    def runs_code(self) -> bool:
        """Whether building the model runs a file of its owner's."""
        return self.spec.startswith("file:") or bool(self.latents)
