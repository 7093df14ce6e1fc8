"""What attention's fused kernels see, against changing one pixel after the other (they turn some NaN into numbers)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitscope_pipelines.vision.receptive_fields.dependency import CLIPPED
from unitscope_pipelines.vision.receptive_fields.intervals import Intervals

SHAPE = (1, 4, 5, 3)
OTHERS = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))


def bounds_by_change(function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """For each value (plane, …) −top, bottom, −left and right of the pixels that change it."""
    plain = function(image)
    found = torch.full((4, *plain.shape), -torch.inf)
    for row in range(SHAPE[2]):
        for col in range(SHAPE[3]):
            probe = image.clone()
            probe[..., row, col] += torch.tensor([1.0, -2.0, 3.0, -4.0])
            bounds = torch.tensor([-row, row + 1, -col, col + 1]).reshape(4, *[1] * (found.dim() - 1))
            found = torch.where(function(probe) != plain, torch.maximum(found, bounds), found)
    return found


def encoder_layer(image: Tensor) -> Tensor:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval().requires_grad_(False)
    tokens: Tensor = layer(image.flatten(2).transpose(1, 2))
    return tokens


def self_attention(image: Tensor) -> Tensor:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, batch_first=True).eval().requires_grad_(False)
    tokens = image.flatten(2).transpose(1, 2)
    found: Tensor = layer(tokens, tokens, tokens, need_weights=False)[0]
    return found


@pytest.mark.parametrize(
    ("function", "kernel"),
    [
        (lambda image: F.scaled_dot_product_attention(image, *OTHERS), "_scaled_dot_product"),
        (lambda image: F.scaled_dot_product_attention(OTHERS[0], image, OTHERS[1]), "_scaled_dot_product"),
        (lambda image: F.scaled_dot_product_attention(*OTHERS, image), "_scaled_dot_product"),
        (encoder_layer, "_transformer_encoder_layer_fwd"),
        (self_attention, "_native_multi_head_attention"),
    ],
    ids=["query", "key", "value", "encoder layer", "self-attention"],
)
def test_fused_attention_sees_the_pixels_that_change_it(function: Callable[[Tensor], Tensor], kernel: str) -> None:
    ran: list[str] = []

    class Watched(Intervals):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            ran.append(func._schema.name)
            return super().__torch_dispatch__(func, types, args, kwargs)

    image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), Watched(image) as intervals:
        output = function(image)
    assert any(name.startswith(f"aten::{kernel}") for name in ran)
    dependency = intervals.dependency_of(output)
    assert dependency is not None
    with torch.no_grad():
        assert torch.equal(dependency[CLIPPED], bounds_by_change(function, image))
