"""Networks whose receptive fields the tests measure, and functions that measure them once."""

from collections.abc import Callable, Sequence
from functools import cache

from torch import Tensor, nn

from tests.pipelines.vision.receptive_fields.oracles import Shape
from unitscope_pipelines.vision.models.models import VisionModel, choose_layers, load_model
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.geometry import ReceptiveField
from unitscope_schemas.units import LayerSpec

INPUT = (3, 224, 224)


FAST = ("torchvision:alexnet", "torchvision:resnet18", "torchvision:mobilenet_v2", "efficientnet-lite:0")


SLOW = ("torchvision:vgg16", "torchvision:resnet50", "torchvision:convnext_tiny", "torchvision:vit_b_16")


@cache
def network(spec: str) -> VisionModel:
    return load_model(spec, "random:0")


@cache
def measured(spec: str, picture_count: int = 0) -> list[LayerSpec]:
    model = network(spec)
    return measure_layers(model.module, choose_layers(model), INPUT, picture_count=picture_count)


def fields(model: nn.Module, names: Sequence[str], input_shape: Shape) -> list[ReceptiveField]:
    return [layer.receptive_field for layer in measure_layers(model, names, input_shape)]


class Computed(nn.Module):
    """Any function of a convolution's output, as a layer."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.function = function
        self.layer = nn.Identity()

    def forward(self, image: Tensor) -> object:
        return self.layer(self.function(self.conv(image)))


def computed(function: Callable[[Tensor], object], input_shape: Shape = (3, 12, 16)) -> tuple[nn.Module, LayerSpec]:
    model = Computed(function).eval()
    return model, measure_layers(model, ["layer"], input_shape)[0]
