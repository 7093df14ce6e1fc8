"""Entry 6: locations in another order than rows are put where they lie, or have no place."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.pipelines.vision.receptive_fields.oracles import assert_boxes_hold_for_nan
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.peaks import arranged, peaks
from unitscope_pipelines.vision.recording.recording import output_of
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Box, Location, Size

SHAPE = (3, 16, 24)
GRID = Size(4, 6)


class Patches(nn.Module):
    """Patches of 4 × 4 pixels, each maybe mixed with the mean of all, put out in some other form."""

    def __init__(self, form: Callable[[Tensor], Tensor], mixed: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 4, stride=4)
        self.form, self.mixed = form, mixed
        self.layer = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.form(self.plain(images)))

    def plain(self, images: Tensor) -> Tensor:
        """The map that the form is made of."""
        patches = self.patches(images)
        return patches + patches.mean((2, 3), keepdim=True) if self.mixed else patches


def tokens(values: Tensor) -> Tensor:
    return values.flatten(2).transpose(1, 2)


def windows(values: Tensor) -> Tensor:
    """Windows of 2 × 3 patches: (image, window row, window col, row, col, channel)."""
    return values.unflatten(2, (2, 2)).unflatten(4, (2, 3)).permute(0, 2, 4, 3, 5, 1)


def dilated(values: Tensor) -> Tensor:
    """The grid attention of MaxViT: windows of patches that lie far apart."""
    return values.unflatten(2, (2, 2)).unflatten(4, (3, 2)).permute(0, 3, 5, 2, 4, 1)


FORMS = {
    "rows": tokens,
    "reversed": lambda values: tokens(values).flip(1),
    "columns": lambda values: tokens(values.transpose(2, 3)),
    "unrolled as by Hiera": lambda values: windows(values).flatten(1, 4),
    "windows apart": lambda values: windows(values).flatten(3, 4).flatten(1, 2),
    "windows as images": lambda values: windows(values).flatten(0, 2).flatten(1, 2),
    "maps of windows as images": lambda values: windows(values).flatten(0, 2),
    "maps of windows as images, channels first": lambda values: windows(values).flatten(0, 2).movedim(-1, 1),
    "grid attention of MaxViT": lambda values: dilated(values).flatten(0, 2),
    "Mixer's transposed tokens": lambda values: values.flatten(2),
    "columns by rows": lambda values: values.transpose(2, 3),
    "map upside down": lambda values: values.flip(2),
    "map turned by half": lambda values: values.flip(2, 3),
    "rolled map": lambda values: values.roll((1, 2), (2, 3)),
    "rolled map, channels last": lambda values: values.roll((3, 1), (2, 3)).permute(0, 2, 3, 1),
    "any order": lambda values: tokens(values)[:, torch.randperm(24, generator=torch.Generator().manual_seed(4))],
}


@pytest.mark.parametrize("mixed", [False, True], ids=["local", "whole"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_values_in_any_order_lie_where_their_patch_does(form: Callable[[Tensor], Tensor], mixed: bool) -> None:
    torch.manual_seed(0)
    model = Patches(form, mixed).eval()
    layer = measure_layers(model, ["layer"], SHAPE, picture_count=0)[0]
    assert (layer.units, layer.grid, layer.prefix_tokens) == (5, GRID, 0)
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        output, plain = output_of(model, "layer", images), model.plain(images)
    assert torch.equal(as_map(output, layer), plain)
    unit_peaks = peaks(arranged(output, layer))
    assert torch.equal(unit_peaks.activation, plain.flatten(2).amax(2))
    assert torch.equal(unit_peaks.location, plain.flatten(2).argmax(2))
    if not mixed:
        assert layer.receptive_field.stride == (4, 4)
        assert layer.receptive_field.box_at(Location(2, 5)) == Box(8, 20, 12, 24)
        assert_boxes_hold_for_nan(model, [layer], SHAPE)


@pytest.mark.parametrize("place", [0, 7, 24], ids=["first", "between", "last"])
def test_a_class_token_may_stand_anywhere(place: int) -> None:
    def with_class(values: Tensor) -> Tensor:
        patches, token = tokens(values), torch.full((len(values), 1, 5), 9.0)
        return torch.cat([patches[:, :place], token, patches[:, place:]], 1)

    model = Patches(with_class, mixed=True).eval()
    layer = measure_layers(model, ["layer"], SHAPE, picture_count=0)[0]
    assert (layer.grid, layer.prefix_tokens) == (GRID, 1)
    output = output_of(model, "layer", torch.randn(2, *SHAPE))
    assert bool((peaks(arranged(output, layer)).location == 0).all()) and layer.location(0) == (-1, 0)


def test_a_token_of_the_mean_is_no_patch() -> None:
    layer = measure_layers(
        Patches(lambda values: torch.cat([tokens(values), tokens(values).mean(1, keepdim=True)], 1)), ["layer"], SHAPE
    )[0]
    assert (layer.grid, layer.prefix_tokens) == (GRID, 1)


def test_channels_of_unshuffled_pixels_keep_the_box_of_all_their_pixels() -> None:
    model = Patches(lambda values: nn.functional.pixel_unshuffle(values, 2)).eval()
    layer = measure_layers(model, ["layer"], SHAPE)[0]
    assert (layer.kind, layer.units, layer.grid, layer.layout) == ("map", 20, (2, 3), None)
    assert_boxes_hold_for_nan(model, [layer], SHAPE, tight=False)


class Mixing(nn.Module):
    """A linear layer over the tokens, as in MLP-Mixer: (channel, hidden token)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, stride=4)
        self.layer = nn.Linear(24, hidden)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.patches(images).flatten(2))


@pytest.mark.parametrize(
    "model",
    [
        Mixing(7),
        Mixing(24),
        Patches(lambda values: tokens(values)[:, :20]),
        Patches(lambda values: torch.cat([tokens(values), tokens(values)[:, ::2]], 1)),
        Patches(lambda values: torch.ones(len(values), 6, 24) @ tokens(values)),
    ],
    ids=["mixed tokens", "as many mixed tokens", "some tokens", "tokens of two scales", "queries"],
)
def test_tokens_that_fill_no_grid_have_no_place_and_are_not_drawn(model: nn.Module) -> None:
    layer = measure_layers(model, ["layer"], SHAPE)[0]
    output = output_of(model, "layer", torch.randn(2, *SHAPE))
    assert (layer.kind, layer.grid, layer.prefix_tokens) == ("tokens", (0, 0), output.shape[1])
    assert not layer.placed and layer.location(3) == (-1, 3)
    assert layer.receptive_field.box_at(layer.location(3)) == Box(0, 0, 16, 24)
    with pytest.raises(UsageError, match="no place in the picture"):
        as_map(output, layer)
