"""The batch size of a GPU is measured: the smallest that is about as fast as any, and that fits."""

import pytest
import torch
from torch import Tensor, nn

from unitscope_pipelines.vision.recording import batch_size
from unitscope_pipelines.vision.recording.batch_size import best_size, forward_rates
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Size

LOOK = Preprocessing(resize_px=16, input=Size(16, 24), interpolation="bilinear", mean=(9.0,) * 3, std=(3,) * 3)


class Small(nn.Module):
    """A network that has memory for some pictures at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.conv, self.shapes = most, nn.Conv2d(3, 4, 3), set[torch.Size]()

    def forward(self, images: Tensor) -> Tensor:
        self.shapes.add(images.shape)
        if len(images) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return self.conv(images)


def test_rates_are_measured_up_to_the_size_that_has_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "_SECONDS", 0.01)
    module = Small(most=10)
    rates = forward_rates(module, LOOK, "fp32", torch.device("cpu"), (2, 4, 8, 16, 32))
    assert list(rates) == [2, 4, 8]
    assert all(rate > 0 for rate in rates.values())
    assert module.shapes == {torch.Size((size, 3, 16, 24)) for size in (2, 4, 8, 16)}


@pytest.mark.parametrize(
    ("rates", "size"),
    [
        ({32: 9.0}, 32),
        ({32: 100.0, 64: 102.0, 128: 101.0}, 32),
        ({32: 100.0, 64: 200.0, 128: 205.0}, 64),
        ({32: 1.0, 64: 9.0}, 64),
    ],
)
def test_a_larger_batch_that_is_hardly_faster_is_not_taken(rates: dict[int, float], size: int) -> None:
    assert best_size(rates) == size


def test_a_card_without_memory_for_the_smallest_batch_is_an_error_that_says_what_would_do() -> None:
    with pytest.raises(ModelError, match="a batch of 32 does not fit the memory of the device; use a smaller --batch"):
        best_size({})
