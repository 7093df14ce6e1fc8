"""Batches through a network: the way to a device and back, memory that does not suffice, peaks by either kernel."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording import lanes
from unitscope_pipelines.vision.recording.fusing import Fusions
from unitscope_pipelines.vision.recording.lanes import CudaLane, pack, unpack
from unitscope_pipelines.vision.recording.peaks import pooled, reduced
from unitscope_pipelines.vision.recording.recorder import RecordedBatch, Recorder, RecordingPlan
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Size

SIDE, BATCH = 32, 8


class Narrow(nn.Module):
    """A network that fits the memory for so many pictures at a time."""

    def __init__(self, most: int = BATCH) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2)
        self.most, self.sizes = most, list[int]()

    def forward(self, pictures: Tensor) -> Tensor:
        self.sizes.append(len(pictures))
        if len(pictures) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.second(self.first(pictures).relu())


class FakeCuda:
    """Streams and events of a GPU that is this process's own memory; waits are noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[str] = []
        self.under_way = self.most_under_way = 0
        cuda = torch.cuda
        monkeypatch.setattr(cuda, "Stream", lambda device: FakeStream(self))
        monkeypatch.setattr(cuda, "current_stream", lambda device: FakeStream(self))
        monkeypatch.setattr(cuda, "Event", lambda: FakeEvent(self))
        monkeypatch.setattr(cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(cuda, "empty_cache", lambda: self.waits.append("released"))
        monkeypatch.setattr(CudaLane, "pins", False)
        plain = torch.empty
        monkeypatch.setattr(lanes.torch, "empty", lambda *shape, pin_memory=False, **kind: plain(*shape, **kind))
        monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: None)


class FakeStream:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def wait_stream(self, other: "FakeStream") -> None:
        pass


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def record(self, stream: FakeStream) -> None:
        self.cuda.under_way += 1
        self.cuda.most_under_way = max(self.cuda.most_under_way, self.cuda.under_way)

    def synchronize(self) -> None:
        self.cuda.under_way -= 1
        self.cuda.waits.append("synchronised")


def recorder(module: Narrow) -> Recorder:
    layers = tuple(measure_layers(Narrow(), ["first", "second"], (3, SIDE, SIDE)))
    look = Preprocessing(
        resize_px=SIDE, input=Size(SIDE, SIDE), interpolation="bilinear", mean=(9.0,) * 3, std=(3,) * 3
    )
    plan = RecordingPlan(look, layers, "second", BATCH, "fp32")
    return Recorder(module, plan, torch.device("cpu"), Fusions({}, set()))


def batches(count: int) -> Iterator[list[Tensor]]:
    chance = np.random.default_rng(0)
    for size in [BATCH] * (count - 1) + [3]:
        yield list(torch.from_numpy(chance.integers(0, 256, (size, 3, SIDE, SIDE), np.uint8)))


def assert_same(one: RecordedBatch, other: RecordedBatch, rounding: float = 0.0) -> None:
    for layer, (activation, location) in one.peaks.items():
        torch.testing.assert_close(activation, other.peaks[layer].activation, rtol=rounding, atol=rounding)
        assert torch.equal(location, other.peaks[layer].location)
    torch.testing.assert_close(one.vectors, other.vectors, rtol=rounding, atol=rounding)
    assert torch.equal(one.brighter, other.brighter)
    assert torch.equal(one.tint, other.tint)


def test_the_lane_of_a_gpu_gives_what_the_host_gives_with_two_batches_under_way_and_one_wait_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = list(recorder(Narrow()).run(batches(5)))
    assert [len(batch.vectors) for batch in plain] == [8, 8, 8, 8, 3]
    cuda, ours = FakeCuda(monkeypatch), recorder(Narrow())
    ours._lane = CudaLane(torch.device("cpu"))
    for one, other in zip(plain, ours.run(batches(5)), strict=True):
        assert_same(one, other)
    assert cuda.most_under_way == 2
    assert cuda.waits == ["synchronised"] * 5


def test_a_batch_that_does_not_fit_runs_in_halves_and_so_do_later_ones() -> None:
    plain, narrow = list(recorder(Narrow()).run(batches(3))), Narrow(most=3)
    ours = recorder(narrow)
    found = list(ours.run(batches(3)))
    assert ours.at_once == 2
    assert narrow.sizes == [8, 4, *[2] * 12]
    for one, other in zip(plain, found, strict=True):
        assert_same(one, other, 1e-5)


def test_a_picture_that_does_not_fit_alone_is_an_error_that_says_what_would_do() -> None:
    with pytest.raises(ModelError, match="one picture does not fit the memory of the device: record fewer layers"):
        recorder(Narrow(most=0)).forward(next(batches(2)))


def test_tensors_of_any_kind_are_packed_into_bytes_and_out_again() -> None:
    outputs = [
        torch.randn(5, 7),
        torch.randint(0, 9, (5, 7)),
        torch.randn(5, 3, 4).half().transpose(1, 2),
        torch.rand(5, 16, 16) > 0.5,
        torch.randint(0, 256, (5, 3), dtype=torch.uint8),
    ]
    packed = pack(outputs)
    assert packed.shape == (5, 4 * 7 + 8 * 7 + 2 * 12 + 256 + 3)
    for one, other in zip(outputs, unpack(packed, [(own.dtype, own.shape[1:]) for own in outputs]), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["contiguous", "channels last", "tokens"])
def test_both_kernels_find_the_same_peaks_and_the_first_of_equal_ones(kind: str) -> None:
    chance = torch.Generator().manual_seed(1)
    maps = torch.randint(-3, 3, (4, 9, 7, 5), generator=chance).float()
    if kind == "channels last":
        maps = maps.contiguous(memory_format=torch.channels_last)
    if kind == "tokens":
        maps = maps.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).unsqueeze(-1)
    (activation, location), other = pooled(maps), reduced(maps)
    assert torch.equal(activation, other.activation)
    assert torch.equal(location, other.location)
    flat = maps.flatten(2)
    assert location[2, 3] == int((flat[2, 3] == flat[2, 3].max()).nonzero()[0])


def test_a_value_that_is_not_a_number_reaches_the_peak_by_both_kernels() -> None:
    maps = torch.randn(2, 3, 4, 4)
    maps[1, 2, 3, 0] = torch.nan
    for found in (pooled(maps), reduced(maps)):
        assert found.activation.isnan().nonzero().tolist() == [[1, 2]]


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    made: list[Any] = []
    plain = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *given, **kind: made.append(given) or plain(*given, **kind))
    yield made


def test_constants_are_made_once_and_not_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = recorder(Narrow())
    list(ours.run(batches(1)))
    with counted(monkeypatch) as made:
        list(ours.run(batches(3)))
    assert made == []
