"""The classes of a model: which layer's units they are, and what they are called."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitscope_pipelines.vision.models.classes import Classes, class_labels, classes_of
from unitscope_pipelines.vision.models.models import VisionModel, load_model
from unitscope_schemas.entries.model import ModelEntry, Preprocessing
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.geometry import Size
from unitscope_schemas.units import UnitId


class Headed(nn.Module):
    """A head that is called twice, in a wrapper whose output is the head's."""

    def __init__(self, last: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.wrapped = nn.Sequential(nn.Linear(4, 4))
        self.last = last

    def forward(self, pictures: Tensor) -> Tensor:
        found = self.wrapped(self.wrapped(self.stem(pictures).mean((2, 3))))
        return found if self.last == "head" else F.softmax(found, 1)


def model_of(module: nn.Module) -> VisionModel:
    preprocessing = Preprocessing(
        resize_px=8, input=Size(8, 8), interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3
    )
    return VisionModel(ModelEntry(spec="own", weights="random:0", weights_digest=""), module.eval(), preprocessing, ())


def test_a_class_is_a_unit_of_the_layer_that_puts_out_what_the_model_does() -> None:
    model = load_model()
    found = classes_of(model)
    picture = torch.randn(1, *model.input_shape, generator=torch.Generator().manual_seed(0))
    heard: list[Tensor] = []
    module = model.module.get_submodule(found.layer.name)
    handle = module.register_forward_hook(lambda _module, _inputs, output: heard.append(output))
    assert torch.equal(model.module(picture), heard[0])
    handle.remove()
    assert (found.layer.kind, found.layer.units) == ("vector", 1000)
    # the first picture of `skimage.data.chelsea()` is taken for a tiger cat, the class that ImageNet counts as 282
    assert found.unit("282") == found.unit("Tiger cat") == UnitId("_fc", 282)


def test_the_innermost_call_has_the_classes() -> None:
    assert classes_of(model_of(Headed("head"))).layer.name == "wrapped.0@1"
    with pytest.raises(UsageError, match="behind all of its modules"):
        classes_of(model_of(Headed("function")))
    with pytest.raises(UsageError, match="no vector of classes"):
        classes_of(model_of(nn.Sequential(nn.Conv2d(3, 4, 3))))


def test_labels_are_those_of_published_weights_only() -> None:
    def labels(spec: str, weights: str = "default") -> tuple[str, ...]:
        return class_labels(ModelEntry(spec=spec, weights=weights, weights_digest=""))

    for spec in ("efficientnet-lite:0", "torchvision:resnet18", "timm:resnet18"):
        assert len(labels(spec)) == 1000
        assert labels(spec)[282] == "tiger cat"
        assert labels(spec, "random:0") == ()
    assert labels("file:own.py:build") == ()


@pytest.mark.parametrize(
    ("labels", "reference", "words"),
    [
        (("tabby", "tiger cat"), "tabbi", "did you mean tabby"),
        (("tabby", "tiger cat"), "2", "classes 0 to 1"),
        (("crane, bird", "crane, machine"), "crane", "several classes"),
        ((), "tabby", "labels are not known"),
    ],
)
def test_a_class_that_there_is_not_is_refused(labels: tuple[str, ...], reference: str, words: str) -> None:
    layer = classes_of(model_of(Headed("head"))).layer.model_copy(update={"units": 2})
    with pytest.raises(NotFoundError, match=words):
        Classes("own", layer, labels).unit(reference)
