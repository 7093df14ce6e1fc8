"""What runs on a graphics card alone: its lane, its reduction, its memory."""

import pytest
import torch

from tests.pipelines.vision.test_recorder import BATCH, Narrow, assert_same, batches, recorder
from unitscope_pipelines.vision.recording.fusing import Fusions
from unitscope_pipelines.vision.recording.peaks import pooled, reduced
from unitscope_pipelines.vision.recording.recorder import Recorder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def on_card(module: Narrow) -> Recorder:
    device = torch.device("cuda")
    return Recorder(module.to(device), recorder(Narrow())._plan, device, Fusions({}, set()))


def test_a_card_records_what_the_host_records() -> None:
    for one, other in zip(recorder(Narrow()).run(batches(5)), on_card(Narrow()).run(batches(5)), strict=True):
        assert_same(one, other, 1e-4)


def test_a_batch_that_does_not_fit_the_card_runs_in_halves() -> None:
    narrow = on_card(Narrow(most=BATCH // 4))
    for one, other in zip(recorder(Narrow()).run(batches(2)), narrow.run(batches(2)), strict=True):
        assert_same(one, other, 1e-4)
    assert narrow.at_once == BATCH // 4


@pytest.mark.parametrize("last", [False, True])
def test_equal_peaks_of_a_card_are_at_the_first_location(last: bool) -> None:
    maps = torch.randint(-3, 3, (8, 40, 31, 17), device="cuda").float()
    if last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    host = pooled(maps.cpu())
    found = reduced(maps)
    assert torch.equal(found.activation.cpu(), host.activation)
    assert torch.equal(found.location.cpu(), host.location)
