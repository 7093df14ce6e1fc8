"""Recording layers of a forward, and forwards that end at a layer."""

import pytest
import torch
from torch import nn

from unitscope_pipelines.vision.recording.recording import output_of, record
from unitscope_schemas.errors import ModelError


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


@pytest.fixture
def network() -> nn.Sequential:
    """Two convolutions with a ReLU between that works in place, and a third that no test reaches."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 2, 1)
    return nn.Sequential(*layers).eval().requires_grad_(False)


def test_a_forward_that_ends_at_a_layer_has_its_output_and_computes_nothing_behind(network: nn.Sequential) -> None:
    image, reached = torch.randn(1, 3, 8, 8), []
    network[3].register_forward_hook(lambda *_: reached.append(1))
    expected = network[0](image)
    torch.testing.assert_close(output_of(network, "0", image), expected, rtol=0, atol=0)
    assert not reached
    network(image)
    assert reached, "the hooks are gone"


def test_a_call_that_does_not_happen_is_an_error(network: nn.Sequential) -> None:
    with pytest.raises(ModelError, match="'2@1' was not called"):
        output_of(network, "2@1", torch.randn(1, 3, 8, 8))
