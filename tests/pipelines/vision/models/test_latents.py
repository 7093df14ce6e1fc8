"""Latents of a layer, recorded as a layer of their own."""

from pathlib import Path

import pytest
import torch

from tests.networks import write_networks
from unitscope_pipelines.vision.models.models import choose_layers, load_model
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.errors import ModelError, UsageError


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    """The file with networks of one's own."""
    return write_networks(tmp_path)


@pytest.mark.parametrize(
    ("factory", "latents", "layer", "units", "kind"),
    [
        ("twice", "stem=of_stem", "stem.latents", 24, "map"),
        ("vit", "blocks.1=of_tokens", "blocks.1.latents", 48, "tokens"),
        ("swin", "layers.0.blocks.1=of_windows", "layers.0.blocks.1.latents", 40, "map"),
    ],
)
def test_latents_are_units_with_the_field_of_their_layer(
    factory: str, latents: str, layer: str, units: int, kind: str, networks: Path
) -> None:
    source, coder = latents.split("=")
    model = load_model(f"file:{networks}:{factory}", "random:0", [f"{source}=file:{networks}:{coder}"], True)
    assert layer in choose_layers(model)
    own, hung = measure_layers(model.module, [source, layer], model.input_shape, picture_count=0)
    assert (hung.units, hung.kind, hung.grid, hung.prefix_tokens) == (units, kind, own.grid, own.prefix_tokens)
    assert hung.receptive_field == own.receptive_field and hung.channels_last == own.channels_last
    pictures = torch.rand(2, *model.input_shape)
    with torch.no_grad(), record(model.module, [source, layer], lambda _, output: output.clone()) as recorded:
        model.module(pictures)
    vectors, found = recorded[source], recorded[layer]
    if factory == "twice":
        vectors, found = vectors.movedim(1, 3), found.movedim(1, 3)
    encoder = dict(model.module.named_modules())[f"{layer}.coder.encoder"]
    assert torch.equal(found, torch.relu(encoder(vectors)))


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ("stem", "are not LAYER=file:PATH.py:FACTORY"),
        ("stam=file:FILE:of_stem", "no layer 'stam'"),
        ("stem=file:FILE:nothing", "not a torch.nn.Module"),
        ("stem=file:FILE:wrong", "only the last axis may change"),
    ],
)
def test_latents_that_do_not_fit_are_named(latents: str, message: str, networks: Path) -> None:
    request = latents.replace("FILE", str(networks))
    with pytest.raises((UsageError, ModelError), match=message):
        choose_layers(load_model(f"file:{networks}:twice", "random:0", [request], True))


def test_latents_can_be_hung_within_inference_mode(networks: Path) -> None:
    with torch.inference_mode():
        model = load_model(f"file:{networks}:twice", "random:0", [f"stem=file:{networks}:of_stem"], True)
    assert not any(parameter.is_inference() for parameter in model.module.parameters())
