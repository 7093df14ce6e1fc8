"""Latents of a layer, recorded as a layer of their own."""

from pathlib import Path

import pytest
import torch

from tests.networks import write_networks
from unitscope_pipelines.vision.models.models import choose_layers, load_model, reload_model
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


CODERS = """
import torch
from torch import nn


class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(7, 3)

    def forward(self, vectors):
        return self.encode(vectors)

    def encode(self, vectors):
        return self.encoder(vectors)  # the faulty line


class Unnamed(Wrong):
    def encode(self, vectors):
        return self.enkoder(vectors)  # the faulty line


def wrong(): return Wrong()
def unnamed(): return Unnamed()
def breaks(): return 1 / 0  # the faulty line
"""


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "wrong",
            r"latents of stem, given channels last, shape \(1, 16, 16, 8\), failed: RuntimeError: .*mat1 and mat2",
        ),
        ("unnamed", r"failed: AttributeError: 'Unnamed' object has no attribute 'enkoder'"),
        ("breaks", r"'breaks' of .*coders\.py' failed: ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_in_latents_of_ones_own_names_file_and_line_in_one_line(
    factory: str, message: str, networks: Path, tmp_path: Path
) -> None:
    path = tmp_path / "coders.py"
    path.write_text(CODERS)
    marked = [number for number, line in enumerate(CODERS.splitlines(), 1) if "faulty" in line]
    line = marked[["wrong", "unnamed", "breaks"].index(factory)]
    with pytest.raises(ModelError, match=f"{message}.*\\({path}, line {line}\\)") as raised:
        choose_layers(load_model(f"file:{networks}:twice", "random:0", [f"stem=file:{path}:{factory}"], True))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("broken", ["def of_stem(:\n", "import no_such_package\n", "raise KeyError('x')\n"])
def test_a_file_that_does_not_run_names_its_line(broken: str, networks: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(f"import torch\n{broken}")
    with pytest.raises(ModelError, match=rf"the code of '.*broken\.py' failed: \w+: .* \({path}, line 2\)$"):
        load_model(f"file:{networks}:twice", "random:0", [f"stem=file:{path}:of_stem"], True)


def test_edited_code_is_named_by_its_own_file(networks: Path, tmp_path: Path) -> None:
    path = tmp_path / "coders.py"
    path.write_text(networks.read_text())
    entry = load_model(f"file:{networks}:twice", "random:0", [f"stem=file:{path}:of_stem"], True).entry
    path.write_text(path.read_text() + "# edited\n")
    with pytest.raises(ModelError, match=rf"the code of stem=file:{path}:of_stem has changed"):
        reload_model(entry, True)
    path.write_text(networks.read_text())
    networks.write_text(networks.read_text() + "# edited\n")
    with pytest.raises(ModelError, match=rf"the code of file:{networks}:twice has changed"):
        reload_model(entry, True)
