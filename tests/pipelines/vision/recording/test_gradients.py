"""Gradients are needed for the effective field, optimised inputs and projections only; what cuts them is named."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitscope_pipelines.vision.attribution.deconvnet import project, signals
from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.optimisation.optimisation import OptimisationSettings, optimise_unit
from unitscope_pipelines.vision.optimisation.recipes import RECIPES
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.entries.model import ModelEntry, Preprocessing
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Location, Size

SHAPE = (3, 12, 12)


class Chain(nn.Module):
    """Two convolutions with something between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

    def between(self, values: Tensor) -> Tensor:
        return F.relu(values)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.conv2(self.between(self.conv(images)))
        return output


class OverwrittenInPlace(Chain):
    def between(self, values: Tensor) -> Tensor:
        values = F.relu(values)
        values -= 0.1
        return values


class OverwrittenSigmoid(Chain):
    def between(self, values: Tensor) -> Tensor:
        return torch.sigmoid(values).mul_(2)


class WithoutGrad(Chain):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class Inference(Chain):
    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class InferenceInside(Chain):
    def forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return super().forward(images)


class InferenceHalfway(Chain):
    def forward(self, images: Tensor) -> Tensor:
        values = self.conv(images)
        with torch.inference_mode():
            return self.conv2(F.relu(values))


class Detached(Chain):
    def between(self, values: Tensor) -> Tensor:
        return F.relu(values).detach()


class ByNumpy(Chain):
    def between(self, values: Tensor) -> Tensor:
        self.largest = values.numpy().max()
        return F.relu(values)


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        return values.relu()


class OwnFunction(Chain):
    def between(self, values: Tensor) -> Tensor:
        return Rounded.apply(values)


class NestedWithoutGrad(nn.Module):
    """A network one part of which runs without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 3, 1), WithoutGrad()

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.body(self.stem(images))
        return output


OWN = "the network's own forward switches gradients off"
IN_PLACE = "before or in layer 'conv2' values that its derivative needs are overwritten in place"
CUTS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "overwritten in place": (OverwrittenInPlace, "conv2", IN_PLACE),
    "overwritten sigmoid": (OverwrittenSigmoid, "conv2", IN_PLACE),
    "no_grad": (WithoutGrad, "conv2", OWN),
    "inference_mode": (Inference, "conv2", OWN),
    "inference_mode inside": (InferenceInside, "conv2", OWN),
    "inference_mode halfway": (InferenceHalfway, "conv2", OWN),
    "no_grad in a part": (NestedWithoutGrad, "body.conv2", "layer 'body' switches gradients off"),
    "detached": (Detached, "conv2", "the network's own forward cuts it between layers 'conv' and 'conv2'"),
    "by numpy": (ByNumpy, "conv2", "the forward does not run with gradients"),
    "no derivative": (OwnFunction, "conv2", "before or in layer 'conv2' there is no derivative"),
}


@pytest.mark.parametrize("kind", CUTS)
def test_a_layer_without_gradients_keeps_its_theoretical_size_and_says_why(kind: str) -> None:
    make, layer, words = CUTS[kind]
    (found,) = measure_layers(make().eval(), [layer], SHAPE)
    field = found.receptive_field
    assert (found.kind, found.units, found.grid) == ("map", 5, (8, 8))
    assert field.size == field.effective == (5, 5) and field.stride == (1, 1)
    assert field.unmeasured is not None and field.unmeasured.startswith(words)


def test_layers_before_the_cut_are_measured() -> None:
    before, behind = measure_layers(OverwrittenInPlace().eval(), ["conv", "conv2"], SHAPE)
    assert before.receptive_field.unmeasured is None and before.receptive_field.effective == (3, 3)
    assert behind.receptive_field.unmeasured is not None


def test_a_network_with_gradients_has_nothing_to_say() -> None:
    assert [layer.receptive_field.unmeasured for layer in measure_layers(Chain().eval(), ["conv2"], SHAPE)] == [None]


@pytest.mark.parametrize("kind", CUTS)
def test_projecting_and_optimising_name_the_layer_that_cuts_the_gradient(kind: str) -> None:
    make, layer, words = CUTS[kind]
    torch.manual_seed(0)
    module = make().eval().requires_grad_(False)
    (spec,) = measure_layers(module, [layer], SHAPE, picture_count=0)
    images = torch.rand(2, *SHAPE)
    message = f"no gradient comes back from layer '{layer}' to the pixels: {words}"
    with pytest.raises(ModelError, match=message):
        project(module, spec, 1, images, [Location(3, 3)] * 2, "gradient")
    with pytest.raises(ModelError, match=message):
        signals(module, (spec, 1), images[:1], Location(3, 3), "gradient", spec)
    entry = ModelEntry(spec="file:mine.py:net", weights="default", weights_digest="")
    look = Preprocessing(
        resize_px=12, input=Size(12, 12), interpolation="bilinear", mean=(127.0,) * 3, std=(128.0,) * 3
    )
    # in the first steps a ReLU of the recipe's own stands in, so that an overwritten one does no harm
    steps = RECIPES["olah2017"].redirected_steps + 1 if kind == "overwritten in place" else 1
    for recipe in ("erhan2009", "olah2017"):
        settings = OptimisationSettings(RECIPES[recipe].model_copy(update={"steps": steps}))
        with pytest.raises(ModelError, match=message):
            optimise_unit(VisionModel(entry, module, look, ()), spec, 1, settings)
