"""Values that depend on the batch's other pictures, on a picture's place there, or on chance, are found out."""

import random
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.batch_dependence import BatchDependence, find_batch_dependence
from unitscope_schemas.errors import ModelError
from unitscope_schemas.units import LayerSpec

SHAPE = (3, 12, 12)


class Middle(nn.Module):
    """A convolution, something that is done to its output, and another convolution."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 4, 3), middle, nn.Conv2d(4, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.last(self.middle(self.first(images)))
        return output


class Does(nn.Module):
    """A module that does one thing."""

    def __init__(self, thing: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.thing = thing

    def forward(self, values: Tensor) -> Tensor:
        return self.thing(values)


class StaysInTraining(nn.BatchNorm2d):
    """A batch norm that ignores evaluation mode."""

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


class Remembers(nn.Module):
    """A module that adds what came before."""

    def __init__(self) -> None:
        super().__init__()
        self.before = 0.0

    def forward(self, values: Tensor) -> Tensor:
        self.before, before = float(values[0].mean()), self.before
        return values + before


def drop_path(values: Tensor) -> Tensor:
    """One image in twenty loses its values, as stochastic depth does that forgets evaluation mode."""
    return values * (torch.rand(len(values), 1, 1, 1) > 0.05)


def quantised(values: Tensor) -> Tensor:
    """Values in 127 steps of the largest of the whole batch, as dynamic quantisation has it."""
    return (values * 127 / values.abs().max()).round() * values.abs().max() / 127


COMPANY = {
    "batch norm without running statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "batch norm that stays in training": lambda: StaysInTraining(4),
    "a branch on the batch's mean": lambda: Does(lambda x: x if x.mean() > 0 else 2 * x),
    "a softmax over the batch": lambda: Does(lambda x: x.softmax(0)),
    "a norm over the batch": lambda: Does(lambda x: F.normalize(x, dim=0)),
    "quantised by the batch's largest": lambda: Does(quantised),
    "a sum of those before": lambda: Does(lambda x: x.cumsum(0)),
    "moved within the batch": lambda: Does(lambda x: x.roll(1, 0)),
    "a branch on the batch's length": lambda: Does(lambda x: x if len(x) < 8 else 1.5 * x),
}
CHANCE = {
    "dropout that ignores evaluation mode": lambda: Does(lambda x: F.dropout(x, 0.5)),
    "rare stochastic depth": lambda: Does(drop_path),
    "noise": lambda: Does(lambda x: x + 0.01 * torch.randn_like(x)),
    "Python's chance": lambda: Does(lambda x: x * (1.0 if random.random() < 0.5 else 2.0)),
    "a memory of what came before": Remembers,
}
SOUND = {
    "batch norm": lambda: nn.BatchNorm2d(4).eval(),
    "dropout in evaluation mode": lambda: nn.Dropout(0.5).eval(),
    "instance norm": lambda: nn.InstanceNorm2d(4),
    "a branch on each picture": lambda: Does(lambda x: torch.where(x.mean((1, 2, 3), keepdim=True) > 0, x, 2 * x)),
    "infinities and NaN": lambda: Does(lambda x: (x / 0.0).where(x > 0.5, x.log())),
}


@cache
def all_layers() -> list[LayerSpec]:
    """What is recorded of the network."""
    return measure_layers(Middle(nn.Identity()), ["first", "last"], SHAPE, picture_count=0)


def look(middle: Callable[[], nn.Module], layers: list[str], batch_size: int = 32) -> BatchDependence | None:
    torch.manual_seed(0)
    model = Middle(middle())
    specs = [spec for spec in all_layers() if spec.name in layers]
    extremes = [torch.full((1, *SHAPE), -2.0), torch.full((1, *SHAPE), 2.0), 2 * torch.randn(1, *SHAPE).sign()]
    return find_batch_dependence(model, specs, torch.randn(4, *SHAPE), extremes, batch_size)


@pytest.mark.parametrize("kind", COMPANY)
def test_values_that_depend_on_other_pictures_are_found_at_the_first_layer_that_differs(kind: str) -> None:
    found = look(COMPANY[kind], ["first", "last"])
    assert found is not None and found.layer.startswith("'middle' (") and found.share > 1e-3
    assert look(COMPANY[kind], ["first"]) is None  # what is recorded comes before


@pytest.mark.parametrize("kind", CHANCE)
def test_values_that_depend_on_chance_or_on_what_came_before_are_found(kind: str) -> None:
    for batch_size in (1, 32):
        found = look(CHANCE[kind], ["first", "last"], batch_size)
        assert found is not None and found.layer.startswith("'middle' ("), batch_size
    assert look(CHANCE[kind], ["first"]) is None


@pytest.mark.parametrize("kind", SOUND)
def test_values_of_the_picture_alone_pass(kind: str) -> None:
    for batch_size in (1, 32):
        assert look(SOUND[kind], ["first", "last"], batch_size) is None


def test_a_batch_of_one_has_no_company_to_depend_on() -> None:
    for kind in ("batch norm without running statistics", "a norm over the batch", "a branch on the batch's length"):
        assert look(COMPANY[kind], ["first", "last"], batch_size=1) is None


def test_a_network_that_takes_one_picture_only_is_refused_with_what_would_do() -> None:
    one = lambda: Does(lambda x: x.view(1, 4, 10, 10))  # noqa: E731
    with pytest.raises(ModelError, match=r"batch of shape \(4, 3, 12, 12\) failed: .* --batch-size 1"):
        look(one, ["first", "last"])
    assert look(one, ["first", "last"], batch_size=1) is None
