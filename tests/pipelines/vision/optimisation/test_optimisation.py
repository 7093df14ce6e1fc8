"""Optimised inputs: what they reach, from where they start, and what they leave behind."""

import gc
from collections.abc import Callable

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitscope_pipelines.vision.images.preprocessing import normalise
from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.optimisation import objectives
from unitscope_pipelines.vision.optimisation.measurement import measure
from unitscope_pipelines.vision.optimisation.objectives import at_location, channel_mean, direction, diversity
from unitscope_pipelines.vision.optimisation.optimisation import (
    OptimisationSettings,
    optimise,
    optimise_direction,
    optimise_unit,
)
from unitscope_pipelines.vision.optimisation.parameterisation import GREY, Start
from unitscope_pipelines.vision.optimisation.recipes import RECIPES, recipe
from unitscope_pipelines.vision.optimisation.relu_gradient import ReluGradient
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.entries.model import ModelEntry, Preprocessing
from unitscope_schemas.errors import CapacityError, UsageError
from unitscope_schemas.geometry import Location, Size
from unitscope_schemas.units import LayerSpec

SHORT = recipe("olah2017", steps=4)


class Small(nn.Module):
    """Two convolutions with an in-place rectifier between, a rectified head, and classes."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.out = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.out(self.second(F.relu(self.first(pictures), inplace=True))).mean((2, 3)))


def small(channels: int = 3, rows: int = 16, cols: int = 16) -> tuple[VisionModel, dict[str, LayerSpec]]:
    """A seeded network with its measured layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Small(channels).eval().requires_grad_(False)
    preprocessing = Preprocessing(
        resize_px=max(rows, cols),
        input=Size(rows, cols),
        interpolation="bilinear",
        mean=(120.0,) * channels,
        std=(60.0,) * channels,
    )
    model = VisionModel(ModelEntry(spec="small", weights="random:0", weights_digest=""), module, preprocessing, ())
    layers = measure_layers(module, ["first", "second", "out", "head"], (channels, rows, cols), picture_count=0)
    return model, {layer.name: layer for layer in layers}


def hook_count(module: nn.Module) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in module.modules())


def plain_peak(model: VisionModel, name: str, channel: int, picture: Tensor) -> tuple[float, int]:
    """A unit's maximum and where, from the modules by hand."""
    values = F.conv2d(
        normalise(picture[None], model.preprocessing), model.module.first.weight, model.module.first.bias, 2, 1
    )
    if name != "first":
        values = F.conv2d(F.relu(values), model.module.second.weight, model.module.second.bias, 1, 1)
    flat = values[0, channel].flatten()
    return float(flat.max()), int(flat.argmax())


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("start", ["noise", GREY])
def test_every_recipe_climbs_from_every_start(name: str, start: str) -> None:
    model, layers = small()
    found = optimise_unit(model, layers["second"], 2, OptimisationSettings(recipe(name, steps=20), Start(start)))
    begun = optimise_unit(model, layers["second"], 2, OptimisationSettings(recipe(name, steps=1), Start(start)))
    assert found.activations[0] > begun.activations[0]
    assert found.pictures.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(("channels", "rows", "cols"), [(1, 12, 12), (3, 10, 22), (7, 16, 16)])
def test_any_size_and_number_of_channels_with_the_unit_in_the_centre(channels: int, rows: int, cols: int) -> None:
    model, layers = small(channels, rows, cols)
    layer = layers["second"]
    assert objectives.centre(layer) == Location(layer.grid.height // 2, layer.grid.width // 2)
    found = optimise_unit(model, layer, 3, OptimisationSettings(recipe("none", steps=30), Start(GREY)))
    assert found.pictures.shape == (1, channels, rows, cols)
    assert found.locations == (objectives.centre(layer),)
    changed = (found.pictures[0] != 120).any(0).nonzero()
    box = layer.receptive_field.box_at(found.locations[0])
    assert changed.min(0).values.tolist() >= [box.top, box.left]
    assert (changed.max(0).values < torch.tensor([box.bottom, box.right])).all()


def test_what_is_claimed_is_what_the_stored_picture_reaches() -> None:
    model, layers = small()
    for name in ("first", "second"):
        found = optimise_unit(model, layers[name], 1, OptimisationSettings(recipe("olah2017", steps=8)))
        activation, place = plain_peak(model, name, 1, found.pictures[0])
        assert found.activations[0] == pytest.approx(activation, rel=1e-5)
        assert found.locations[0] == layers[name].location(place)


def test_seeds_decide_the_pixels_whatever_was_drawn_before() -> None:
    model, layers = small()

    def pixels(seed: int) -> Tensor:
        return optimise_unit(model, layers["second"], 0, OptimisationSettings(SHORT, seed=seed)).pictures

    first = pixels(5)
    torch.rand(3)
    np.random.default_rng(0).random(3)
    state = torch.get_rng_state()
    assert torch.equal(first, pixels(5))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, pixels(6))


def test_a_picture_of_the_corpus_may_be_the_start() -> None:
    model, layers = small()
    given = torch.randint(20, 230, (3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    for name in ("none", "olah2017"):
        settings = OptimisationSettings(
            recipe(name, steps=1).model_copy(update={"rate": 1e-9}), Start("picture", given)
        )
        assert (optimise_unit(model, layers["second"], 0, settings).pictures[0].int() - given.int()).abs().max() <= 1
    with pytest.raises(UsageError, match="the network takes"):
        optimise_unit(model, layers["second"], 0, OptimisationSettings(SHORT, Start("picture", given[:, :8])))


def test_a_unit_that_starts_dead_comes_to_life() -> None:
    model, layers = small()
    model.module.second.bias[4] = -0.5
    settings = OptimisationSettings(recipe("none", steps=60), Start(GREY))
    found = optimise_unit(model, layers["out"], 4, settings)
    assert found.activations[0] > 0
    without = settings.recipe.model_copy(update={"redirected_steps": 0})
    stuck = optimise_unit(model, layers["out"], 4, OptimisationSettings(without, Start(GREY)))
    assert stuck.activations[0] == 0
    assert "the gradient was zero for all 60 steps" in stuck.notes[0]


@pytest.mark.parametrize(
    "function", [F.relu, torch.relu, F.relu6, nn.ReLU6(inplace=True), nn.Hardtanh(inplace=True), torch.relu_]
)
def test_a_rectifier_with_another_gradient_answers_as_before(function: Callable[[Tensor], Tensor]) -> None:
    values = torch.linspace(-8, 8, 30).reshape(2, 15)
    wanted = function(values.clone())
    with ReluGradient():
        assert torch.equal(function(values.clone()), wanted)


def test_a_shut_rectifier_passes_only_what_would_open_it() -> None:
    values = torch.tensor([[-1.0, -2.0], [-1.0, 3.0]], requires_grad=True)
    with ReluGradient():
        (F.relu(values) * torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])).sum().backward()
    # the first row is shut: its first value would grow against the gradient, its second sink; the second row is open
    assert values.grad is not None
    assert values.grad.tolist() == [[-1.0, 0.0], [0.0, 1.0]]


def test_objectives_add_and_multiply() -> None:
    _, layers = small()
    layer = layers["second"]
    outputs = {"second": torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))}
    maps = outputs["second"].numpy()
    vector = torch.arange(8.0)
    one, two = at_location(layer, 1), channel_mean(layer, 2)
    wanted = {
        one: maps[:, 1, 4, 4],
        two: maps[:, 2].mean((1, 2)),
        one + two * 3 - one * two: maps[:, 1, 4, 4]
        + 3 * maps[:, 2].mean((1, 2))
        - maps[:, 1, 4, 4] * maps[:, 2].mean((1, 2)),
        -one: -maps[:, 1, 4, 4],
        direction(layer, vector): np.einsum("nurc,u->nrc", maps, np.arange(8.0)).mean((1, 2)),
        direction(layer, vector, Location(0, 1)): maps[:, :, 0, 1] @ np.arange(8.0),
    }
    for objective, values in wanted.items():
        np.testing.assert_allclose(objective.evaluate(outputs).numpy(), values, atol=1e-5, err_msg=objective.text)
    grams = np.einsum("nupq,nvpq->nuv", maps, maps).reshape(2, -1)
    cosine = grams[0] @ grams[1] / np.linalg.norm(grams, axis=1).prod()
    np.testing.assert_allclose(diversity(layer).evaluate(outputs).numpy(), [-cosine] * 2, atol=1e-5)


def test_diverse_pictures_are_less_alike_than_those_of_other_seeds() -> None:
    model, layers = small()
    layer, steps = layers["second"], 40

    def alikeness(weight: float) -> float:
        own = recipe("olah2017", steps).model_copy(update={"diversity": weight})
        pictures = optimise_unit(model, layer, 2, OptimisationSettings(own, count=3)).pictures
        model_input = normalise(pictures, model.preprocessing)
        maps = {"second": model.module.second(F.relu(model.module.first(model_input)))}
        return -float(diversity(layer).evaluate(maps).mean())

    assert alikeness(5.0) < alikeness(1e-6)
    with pytest.raises(UsageError, match="no diversity"):
        optimise_unit(model, layer, 2, OptimisationSettings(recipe("none", steps), count=3))


def test_a_class_and_a_direction_are_optimised_too() -> None:
    model, layers = small()
    found = optimise_unit(model, layers["head"], 3, OptimisationSettings(recipe("olah2017", steps=30)))
    grey = torch.full((1, 3, 16, 16), 120, dtype=torch.uint8)
    assert found.activations[0] > measure(model, layers["head"], 3, grey)[0][0]
    along = direction(layers["second"], torch.linspace(-1, 1, 8))
    made = optimise(model, along, OptimisationSettings(recipe("none", steps=20), Start(GREY))).pictures

    def value(picture: Tensor) -> float:
        maps = model.module.second(F.relu(model.module.first(normalise(picture, model.preprocessing))))
        return float(along.evaluate({"second": maps}))

    assert value(made) > value(grey)


def test_a_direction_of_one_unit_is_that_unit() -> None:
    model, layers = small()
    layer, settings = layers["second"], OptimisationSettings(SHORT, seed=3, count=2)
    unit = optimise_unit(model, layer, 2, settings)
    along = optimise_direction(model, layer, F.one_hot(torch.tensor(2), 8).float(), settings)
    assert torch.equal(along.pictures, unit.pictures)
    assert (along.activations, along.locations) == (unit.activations, unit.locations)


def test_a_direction_is_judged_by_the_largest_product() -> None:
    model, layers = small()
    vector = torch.linspace(-1, 1, 8)
    for objective, end in (("direction", Tensor.max), ("-direction", Tensor.min)):
        found = optimise_direction(model, layers["second"], vector, OptimisationSettings(SHORT), objective)
        maps = model.module.second(F.relu(model.module.first(normalise(found.pictures, model.preprocessing))))
        products = torch.einsum("nurc,u->nrc", maps, vector)
        assert found.activations[0] == pytest.approx(float(end(products)), rel=1e-4)
    with pytest.raises(UsageError, match="8 finite numbers"):
        optimise_direction(model, layers["second"], vector[:7], OptimisationSettings(SHORT))


def test_low_is_the_opposite_of_high() -> None:
    model, layers = small()
    high, low = (
        optimise_unit(
            model, layers["second"], 2, OptimisationSettings(recipe("none", steps=20), Start(GREY)), objective
        ).activations[0]
        for objective in ("unit", "-unit")
    )
    assert low < 0 < high
    with pytest.raises(UsageError, match="channel"):
        optimise_unit(model, layers["second"], 2, OptimisationSettings(SHORT), "logit")


def test_a_hundred_renders_leave_hooks_and_memory_as_they_were() -> None:
    model, layers = small()

    def render(count: int) -> None:
        for seed in range(count):
            optimise_unit(
                model, layers["second"], seed % 8, OptimisationSettings(recipe("olah2017", steps=2), seed=seed)
            )

    render(5)
    gc.collect()
    hooks, tensors = hook_count(model.module), sum(type(one) is Tensor for one in gc.get_objects())
    before = psutil.Process().memory_info().rss
    render(100)
    gc.collect()
    assert hook_count(model.module) == hooks == 0
    assert sum(type(one) is Tensor for one in gc.get_objects()) == tensors
    assert psutil.Process().memory_info().rss - before < 20e6


def test_hooks_go_where_a_step_fails() -> None:
    model, layers = small()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimise_unit(model, layers["second"], 0, OptimisationSettings(SHORT), tell=stop)
    assert hook_count(model.module) == 0


def test_short_memory_is_an_error_and_no_grey_picture() -> None:
    class Hungry(Small):
        def forward(self, pictures: Tensor) -> Tensor:
            return super().forward(pictures + torch.empty(2**46).sum())

    model, layers = small()
    model.module.__class__ = Hungry
    with pytest.raises(CapacityError, match="fewer at a time"):
        optimise_unit(model, layers["second"], 0, OptimisationSettings(SHORT))
    assert hook_count(model.module) == 0


@pytest.mark.parametrize(("scale", "bias"), [(1e-9, 0.0), (1e-9, 2.0), (0.0, 1.0)])
@pytest.mark.parametrize("objective", ["unit", "channel", "-unit"])
def test_a_picture_of_a_unit_with_hardly_any_weights_says_so(scale: float, bias: float, objective: str) -> None:
    model, layers = small()
    model.module.second.weight[4] *= scale
    model.module.second.bias[4] = bias
    settings = OptimisationSettings(recipe("olah2017", steps=8))
    said = " ".join(optimise_unit(model, layers["second"], 4, settings, objective).notes)
    assert "hardly anything of the unit is in the picture" in said
    other = " ".join(optimise_unit(model, layers["second"], 3, settings, objective).notes)
    assert "hardly anything" not in other


def test_a_picture_of_a_direction_of_dead_units_says_so() -> None:
    model, layers = small()
    model.module.second.weight[4:6] = 0
    vector = torch.zeros(8)
    vector[4:6] = torch.tensor([1e6, -1e6])
    settings = OptimisationSettings(recipe("olah2017", steps=4))
    assert "hardly anything" in " ".join(optimise_direction(model, layers["second"], vector, settings).notes)
    vector[0] = 1e6
    assert "hardly anything" not in " ".join(optimise_direction(model, layers["second"], vector, settings).notes)
