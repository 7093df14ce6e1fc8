"""Entry 7: the axis of the images is found by running one picture and two."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.pipelines.vision.receptive_fields.test_places import GRID, SHAPE, Patches, tokens, windows
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.peaks import arranged, channel_axis, peaks
from unitscope_pipelines.vision.recording.recording import output_of
from unitscope_schemas.errors import ModelError

FORMS = {
    "tokens first": lambda values: values.flatten(2).permute(2, 0, 1),
    "tokens first, in columns": lambda values: values.transpose(2, 3).flatten(2).permute(2, 0, 1),
    "images last": lambda values: values.permute(1, 2, 3, 0),
    "tokens, images last": lambda values: values.flatten(2).permute(2, 1, 0),
    "an axis before the images": lambda values: values[None],
    "images side by side in each window": lambda values: windows(values).movedim(0, 2).flatten(0, 2),
    "images as groups of channels": lambda values: values.flatten(0, 1)[None],
    "all tokens in one list": lambda values: tokens(values).flatten(0, 1),
    "all tokens in one list, images inside": lambda values: tokens(values).transpose(0, 1).flatten(0, 1),
}


@pytest.mark.parametrize("mixed", [False, True], ids=["local", "whole"])
@pytest.mark.parametrize("name", FORMS)
def test_images_are_found_on_any_axis(name: str, mixed: bool) -> None:
    torch.manual_seed(0)
    model = Patches(FORMS[name], mixed).eval()
    layer = measure_layers(model, ["layer"], SHAPE, picture_count=2)[0]
    assert (layer.units, layer.grid, layer.prefix_tokens) == (5, GRID, 0)
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        output = output_of(model, "layer", images)
        assert torch.equal(as_map(output, layer), model.plain(images))
    if name == "images as groups of channels":
        with pytest.raises(ModelError, match="on one axis"):
            channel_axis(layer)
    else:
        assert output.shape[channel_axis(layer)] == 5


class SequenceFirst(nn.Module):
    """An encoder as torch has it by default, (token, image, channel), as CLIP and DETR use it, and decoded queries."""

    def __init__(self, class_token: bool = False, queries: int = 0) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8)) if class_token else None
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False)
        self.queries = nn.Parameter(torch.randn(queries, 1, 8)) if queries else None
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 1) if queries else None
        self.first, self.head = nn.Identity(), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        sequence = self.patches(images).flatten(2).permute(2, 0, 1)
        if self.token is not None:
            sequence = torch.cat([self.token.expand(1, len(images), 8), sequence])
        sequence = self.encoder(sequence)
        if self.decoder is not None and self.queries is not None:
            sequence = self.decoder(self.queries.expand(-1, len(images), -1), sequence)
        return self.head(self.first(sequence[:1])[0])


@pytest.mark.parametrize(
    ("model", "name", "prefix", "grid"),
    [
        (SequenceFirst(), "encoder.layers.0", 0, GRID),
        (SequenceFirst(), "encoder.layers.1.linear1", 0, GRID),
        (SequenceFirst(), "encoder.layers.0.self_attn", 0, GRID),
        (SequenceFirst(class_token=True), "encoder.layers.1", 1, GRID),
        (SequenceFirst(class_token=True), "first", 1, (0, 0)),
        (SequenceFirst(queries=7), "encoder", 0, GRID),
        (SequenceFirst(queries=7), "decoder.layers.0", 7, (0, 0)),
    ],
    ids=["encoder", "linear", "attention", "CLIP", "CLIP's class token", "DETR's encoder", "DETR's queries"],
)
def test_a_sequence_first_transformer_is_recorded_as_each_picture_alone(
    model: nn.Module, name: str, prefix: int, grid: tuple[int, int]
) -> None:
    model.eval()
    layer = measure_layers(model, [name], SHAPE, picture_count=1)[0]
    assert (layer.kind, layer.prefix_tokens, layer.grid) == ("tokens", prefix, grid)
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        together = peaks(arranged(output_of(model, name, images), layer))
        alone = [output_of(model, name, image[None])[:, 0] for image in images]
    for number, sequence in enumerate(alone):
        assert torch.allclose(together.activation[number], sequence.amax(0), atol=1e-5)
        assert torch.equal(together.location[number], sequence.argmax(0))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            lambda values: tokens(values).unflatten(2, (1, 5)).expand(-1, -1, 2, -1).transpose(1, 2).flatten(0, 1),
            "axes",
        ),
        (lambda values: values.mean(0), "none of its axes is that of the pictures"),
        (lambda values: torch.zeros(len(values) * 3, 5) + values.sum() * 0, "cannot be told whose"),
    ],
    ids=["heads as images", "mean over images", "constants"],
)
def test_outputs_without_an_axis_of_images_are_refused(form: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        measure_layers(Patches(form).eval(), ["layer"], SHAPE)
