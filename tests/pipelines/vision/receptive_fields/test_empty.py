"""Entry 2: tensors without elements within a forward, as detectors have them, leave the layers as they are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import nms

from tests.pipelines.vision.receptive_fields.oracles import assert_boxes_hold_for_nan
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.geometry import Location, Size


class Emptied(nn.Module):
    """Two convolutions, and between and behind them something that has no elements."""

    def __init__(self, empty: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.empty = empty

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        values = self.second(self.first(images))
        return values, self.empty(values)


def no_boxes(values: Tensor) -> Tensor:
    return values.flatten()[:4].view(1, 4)[values.flatten()[:1] > 1e9]


@pytest.mark.parametrize(
    "empty",
    [
        lambda values: torch.where(values.amax((1, 3)) > 1e9)[1],
        lambda values: values[values > 1e9],
        lambda values: no_boxes(values)[nms(no_boxes(values), no_boxes(values)[:, 0], 0.5)],
        lambda values: torch.cat([no_boxes(values), values.flatten()[:8].view(2, 4)]).softmax(1),
        lambda values: F.conv2d(values[:0], torch.ones(2, 4, 3, 3)).relu(),
        lambda values: F.group_norm(F.max_pool2d(F.interpolate(values[:0], scale_factor=2.0), 2), 2),
        lambda values: F.linear(values[:, :, :0].mean(3), torch.ones(3, 0)),
        lambda values: values.flatten(1)[:, :0].sum(1),
        lambda values: F.layer_norm(no_boxes(values), [4]).sort(0)[0].cumsum(0),
        lambda values: values.new_zeros(2, 0).copy_(values.flatten()[:0]).unsqueeze(0).expand(3, 2, 0).contiguous(),
    ],
    ids=["where", "mask", "nms", "joined", "batch", "pooling", "product", "sum", "sorted", "copied"],
)
def test_nothing_within_a_forward_leaves_the_layers_as_they_are(empty: Callable[[Tensor], Tensor]) -> None:
    model = Emptied(empty).eval()
    layers = measure_layers(model, ["first", "second"], (3, 12, 10), picture_count=1)
    assert [layer.receptive_field.size for layer in layers] == [(3, 3), (5, 5)]
    assert_boxes_hold_for_nan(model, layers, (3, 12, 10))


class Tiny(nn.Sequential):
    """A backbone of three convolutions."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 32, 3))


ANCHORS = AnchorGenerator(((16,),), ((1.0,),))
SIDES = {"min_size": 64, "max_size": 64}


@pytest.mark.parametrize(
    "make",
    [
        lambda: FasterRCNN(Tiny(), 3, rpn_anchor_generator=ANCHORS, **SIDES),
        lambda: RetinaNet(Tiny(), 3, anchor_generator=ANCHORS, **SIDES),
        lambda: FCOS(Tiny(), 3, anchor_generator=ANCHORS, **SIDES),
    ],
    ids=["Faster R-CNN", "RetinaNet", "FCOS"],
)
def test_a_detectors_backbone_has_the_boxes_of_its_convolutions(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    names = ["backbone.0", "backbone.2", "backbone.4"]
    layers = measure_layers(model, names, (3, 64, 64), picture_count=1)
    plain = measure_layers(model.backbone, ["0", "2", "4"], (3, 64, 64), picture_count=0)  # type: ignore[arg-type]
    assert [layer.grid for layer in layers] == [Size(32, 32), Size(16, 16), Size(14, 14)]
    for location in (Location(0, 0), Location(7, 9), Location(13, 13)):
        for layer, alone in zip(layers, plain, strict=True):
            # resizing to the same size reads a pixel more on each side
            pairs = zip(layer.receptive_field.box_at(location), alone.receptive_field.box_at(location), strict=True)
            assert all(abs(side - other) <= 1 for side, other in pairs)
    assert_boxes_hold_for_nan(model, layers, (3, 64, 64), tight=False)
