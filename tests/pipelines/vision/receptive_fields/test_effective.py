"""Effective receptive fields against gradients on photographs."""

import numpy as np
import pytest
import torch
from skimage import data
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

from tests.pipelines.vision.receptive_fields.networks import FAST, INPUT, computed, fields, measured, network
from unitscope_pipelines.vision.models.models import load_model
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.geometry import Location


def photographs() -> Tensor:
    """Photographs at the default model's input."""
    pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), *load_sample_images().images]
    images = [torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() for picture in pictures]
    return (
        torch.cat([F.interpolate(image, size=(224, 224), mode="bilinear", antialias=True) for image in images])
        .sub(127)
        .div(128)
    )


@pytest.mark.parametrize(
    ("spec", "weights", "names"),
    [
        ("efficientnet-lite:0", "default", ["_blocks.2", "_blocks.6", "_blocks.10", "_blocks.13", "_blocks.15"]),
        pytest.param("torchvision:resnet18", "random:0", [f"layer{n}.1" for n in (1, 2, 3, 4)], marks=pytest.mark.long),
        ("torchvision:alexnet", "random:0", ["features.2", "features.12"]),
    ],
)
def test_the_effective_box_holds_nine_tenths_of_the_energy_on_photographs(
    spec: str, weights: str, names: list[str]
) -> None:
    module = load_model(spec, weights).module
    layers = measure_layers(module, names, INPUT)
    images, chance = photographs().requires_grad_(), torch.Generator().manual_seed(0)
    with record(module, [layer.name for layer in layers], lambda _, output: output) as outputs:
        module(images)
    shares = np.empty((len(layers), 6, len(images)))
    for place in np.ndindex(shares.shape[:2]):
        layer = layers[place[0]]
        units = torch.randint(layer.units, (len(images),), generator=chance)
        activation, peaks = outputs[layer.name][torch.arange(len(images)), units].flatten(1).max(1)
        (gradient,) = torch.autograd.grad(activation.sum(), images, retain_graph=True)
        for image, energy in enumerate(gradient.square().sum(1)):
            top, left, bottom, right = layer.receptive_field.effective_box_at(layer.location(int(peaks[image])))
            shares[*place, image] = energy[top:bottom, left:right].sum() / energy.sum() if energy.any() else 1
    assert shares.min() >= 0.9


@pytest.mark.parametrize("spec", FAST)
def test_the_effective_box_is_never_larger_than_the_theoretical_one(spec: str) -> None:
    for layer in measured(spec, picture_count=2):
        place = layer.receptive_field
        if place.size is not None:
            assert 0 < place.effective.height <= place.size.height
            assert 0 < place.effective.width <= place.size.width
        for location in (Location(0, 0), Location(layer.grid.height // 2, layer.grid.width - 1)):
            theoretical, effective = place.box_at(location), place.effective_box_at(location)
            assert effective.inside(place.input)
            assert theoretical.top <= effective.top and theoretical.left <= effective.left
            assert effective.bottom <= theoretical.bottom and effective.right <= theoretical.right


def test_the_effective_field_of_deep_layers_is_much_smaller_than_the_theoretical_one() -> None:
    place = measured("torchvision:resnet18", picture_count=2)[-1].receptive_field
    assert place.size is not None and place.effective.height < place.size.height / 1.5


def test_the_effective_field_follows_the_shape_of_the_field() -> None:
    place = fields(nn.Sequential(nn.Conv2d(3, 8, (9, 3))), ["0"], (3, 40, 40))[0]
    assert place.size == (9, 3) and place.effective.height > place.effective.width


def test_a_layer_without_gradient_keeps_its_theoretical_size() -> None:
    place = computed(lambda x: (x > 0).float())[1].receptive_field
    assert place.size == place.effective == (3, 3)


def test_an_in_place_module_behind_a_layer_changes_nothing() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 9, padding=4)
    with torch.no_grad():
        assert conv.bias is not None
        conv.bias -= 100.0
    alone, followed = (fields(nn.Sequential(conv, *behind), ["0"], (3, 32, 32))[0] for behind in ([], [nn.ReLU(True)]))
    assert alone == followed


def test_the_measurement_repeats_and_does_not_depend_on_other_layers() -> None:
    module = network("torchvision:alexnet").module
    first = measure_layers(module, ["features.3", "features.8"], INPUT)
    again = measure_layers(module, ["features.8"], INPUT)
    assert first[1] == again[0]
