"""Batches of pictures through a network, and what is recorded of them."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from unitscope_pipelines.vision.images.perceptual_hash import perceptual_hash
from unitscope_pipelines.vision.images.preprocessing import PixelBatch, Pixels, normalise, stacked
from unitscope_pipelines.vision.recording.arithmetic import arithmetic
from unitscope_pipelines.vision.recording.embedding import cell_regions, pool
from unitscope_pipelines.vision.recording.fusing import Fusions
from unitscope_pipelines.vision.recording.lanes import CudaLane, HostLane, Wait
from unitscope_pipelines.vision.recording.peaks import Peaks, arranged, peaks
from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.entries.model import Precision, Preprocessing
from unitscope_schemas.errors import ModelError
from unitscope_schemas.units import LayerSpec


@dataclass(frozen=True)
class RecordingPlan:
    """What every batch of a run has in common."""

    preprocessing: Preprocessing
    layers: tuple[LayerSpec, ...]
    embed_layer: str
    batch_size: int
    precision: Precision


@dataclass(frozen=True)
class RecordedBatch:
    """What one batch gives: peaks by layer, pooled vectors of the embedding layer, and perceptual hashes."""

    peaks: dict[str, Peaks]
    vectors: Float[Tensor, "image region unit"]
    brighter: Bool[Tensor, "image 16 16"]
    tint: UInt8[Tensor, "image 3"]


class Recorder:
    """A network on a device, which records peaks of every layer and pooled vectors of one.

    A batch is filled up to its fixed size, so that a picture's values do not depend on its company. Where it does not
    fit the memory of the device, this and all later ones run in halves, and `at_once` says how many pictures at a time.
    """

    def __init__(self, module: nn.Module, plan: RecordingPlan, device: torch.device, fusions: Fusions) -> None:
        self._module, self._plan, self._device, self._fusions = module, plan, device, fusions
        self._layers = {layer.name: layer for layer in plan.layers}
        self._embedded = self._layers[plan.embed_layer]
        self._regions = cell_regions(self._embedded.grid)
        self._lane = CudaLane(device) if device.type == "cuda" else HostLane()
        self.at_once = plan.batch_size

    def run(self, batches: Iterable[Sequence[Pixels]]) -> Iterator[RecordedBatch]:
        """Record batches of at most `batch_size` pictures in their order; as many are under way as the device takes."""
        under_way: deque[tuple[int, Wait]] = deque()
        for pixels in batches:
            under_way.append((len(pixels), self._lane.begin(self._filled(pixels), self._computed)))
            if len(under_way) == self._lane.depth:
                yield self._recorded(*under_way.popleft())
        while under_way:
            yield self._recorded(*under_way.popleft())

    def forward(self, pixels: Sequence[Pixels]) -> RecordedBatch:
        """Record up to one batch of pictures."""
        return next(self.run([pixels]))

    def rounding(self, pictures: Sequence[Pixels]) -> float:
        """Return the largest difference of a peak on some pictures from that in float32, over its layer's largest.

        It is infinite where only one of the two is a number.
        """
        if self._plan.precision == "fp32":
            return 0.0
        exact = Recorder(self._module, replace(self._plan, precision="fp32"), self._device, self._fusions)
        found, truth = self.forward(pictures).peaks, exact.forward(pictures).peaks
        return max(_rounding(found[name].activation, truth[name].activation) for name in truth)

    def _filled(self, pixels: Sequence[Pixels]) -> Tensor:
        """Return pictures as a whole batch (image, row, col, channel), in memory that the device is quick to read."""
        pictures = stacked(pixels).permute(0, 2, 3, 1)
        shape = self._plan.batch_size, *pictures.shape[1:]
        lines = torch.zeros(shape, dtype=pictures.dtype, pin_memory=self._lane.pins)
        lines[: len(pixels)] = pictures
        return lines

    def _computed(self, batch: PixelBatch) -> list[Tensor]:
        """Return activations and locations of every layer, vectors and hashes of a batch, all of them by image."""
        while True:
            try:
                parts = [self._of_some(part) for part in torch.split(batch, self.at_once)]
                return [torch.cat(one) if len(one) > 1 else one[0] for one in zip(*parts, strict=True)]
            except torch.OutOfMemoryError:
                if self.at_once == 1:
                    raise ModelError(
                        "one picture does not fit the memory of the device: record fewer layers, or let nothing else "
                        "run there"
                    ) from None
                self.at_once = -(-self.at_once // 2)
                self._lane.release()

    def _of_some(self, batch: PixelBatch) -> list[Tensor]:
        embedded: list[Tensor] = []

        def keep(layer: str, output: Tensor) -> Peaks:
            if layer == self._plan.embed_layer:
                embedded.append(pool(output, self._embedded, self._regions))
            return peaks(arranged(output, self._layers[layer]), layer)

        with torch.inference_mode():
            rounded = arithmetic(self._device, self._plan.precision)
            with rounded, record(self._module, list(self._layers), keep) as recorded, self._fusions.running():
                self._module(normalise(batch, self._plan.preprocessing))
            levels = batch.clamp(0, 255).round().to(torch.uint8)
            hashes = perceptual_hash(levels, self._plan.preprocessing.shown_channels)
            return [*(values for name in self._layers for values in recorded[name]), embedded[0], *hashes]

    def _recorded(self, count: int, wait: Wait) -> RecordedBatch:
        """Return what was recorded of the first `count` pictures of a batch."""
        *values, vectors, brighter, tint = (output[:count] for output in wait())
        pairs = zip(values[::2], values[1::2], strict=True)
        return RecordedBatch(
            peaks={name: Peaks(*pair) for name, pair in zip(self._layers, pairs, strict=True)},
            vectors=vectors,
            brighter=brighter,
            tint=tint,
        )


def _rounding(found: Float[Tensor, "image unit"], truth: Float[Tensor, "image unit"]) -> float:
    finite = truth.isfinite()
    if not torch.equal(finite, found.isfinite()):
        return math.inf
    difference, size = (found - truth)[finite].abs(), truth[finite].abs()
    return float(difference.max() / size.max()) if size.any() else 0.0
