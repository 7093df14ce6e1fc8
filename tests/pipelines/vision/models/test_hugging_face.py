"""Vision models of Transformers from folders: tiny, of random weights, beside Transformers' own processors."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")

from tests.pictures import blobs  # noqa: E402
from unitscope_pipelines.vision.images.preprocessing import normalise, prepare  # noqa: E402
from unitscope_pipelines.vision.models.default_layers import measure_default  # noqa: E402
from unitscope_pipelines.vision.models.models import VisionModel, choose_layers, load_model, reload_model  # noqa: E402
from unitscope_schemas.errors import ModelError, UsageError  # noqa: E402

_VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_SQUARE = {"height": 32, "width": 32}
_CROPPED = {"size": {"shortest_edge": 36}, "crop_size": _SQUARE}


def _vit() -> tuple[Any, Any]:
    model = transformers.ViTModel(transformers.ViTConfig(**_VIT))
    return model, transformers.ViTImageProcessor(size=_SQUARE)


def _classifier() -> tuple[Any, Any]:
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**_VIT, num_labels=5))
    return model, transformers.ViTImageProcessor(size=_SQUARE, resample=3, image_mean=[0.1, 0.2, 0.3])


def _swin() -> tuple[Any, Any]:
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[2, 1], num_heads=[1, 2], window_size=4
    )
    return transformers.SwinModel(config), transformers.ViTImageProcessor(size=_SQUARE)


def _dino() -> tuple[Any, Any]:
    config = {name: value for name, value in _VIT.items() if name != "intermediate_size"}
    model = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**config, mlp_ratio=2))
    return model, transformers.BitImageProcessor(**_CROPPED)


def _segformer() -> tuple[Any, Any]:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
    )
    return transformers.SegformerModel(config), transformers.SegformerImageProcessor(size=_SQUARE)


def _clip() -> tuple[Any, Any]:
    words = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.CLIPConfig(text_config={**words, "vocab_size": 50}, vision_config=_VIT)
    return transformers.CLIPModel(config), transformers.CLIPImageProcessor(**_CROPPED)


def _convnext() -> tuple[Any, Any]:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 2], num_stages=2)
    return transformers.ConvNextModel(config), transformers.ConvNextImageProcessor(size={"shortest_edge": 32})


def _resnet() -> tuple[Any, Any]:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2])
    return transformers.ResNetModel(config), transformers.ConvNextImageProcessor(size={"shortest_edge": 32})


_CASES: dict[str, tuple[Callable[[], tuple[Any, Any]], int]] = {
    "ViT": (_vit, 3),
    "classifier": (_classifier, 3),
    "Swin": (_swin, 3),
    "DINOv2 with registers": (_dino, 3),
    "Segformer": (_segformer, 2),
    "CLIP, pictures and words": (_clip, 3),
    "ConvNeXt": (_convnext, 3),
    "ResNet": (_resnet, 3),
}
"""Networks with their processors, and how many blocks they have."""


@pytest.fixture(scope="module", params=_CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, int]:
    """A folder, with the network and the processor that were saved there, and its count of blocks."""
    build, blocks = _CASES[request.param]
    torch.manual_seed(0)
    network, processor = build()
    folder = tmp_path_factory.mktemp("hf") / "model"
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, network.eval(), processor, blocks


def test_hugging_face_models_see_what_their_own_processor_makes_and_answer_alike(
    case: tuple[Path, Any, Any, int],
) -> None:
    folder, network, processor, blocks = case
    model = load_model(f"hf:{folder}")
    picture, buffer = blobs(1, 50, 70), io.BytesIO()
    picture.save(buffer, "PNG")
    seen = normalise(prepare(buffer.getvalue(), model.preprocessing).pixels[None], model.preprocessing)
    expected = processor(picture, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)
    tower = getattr(network, "vision_model", network)
    with torch.inference_mode():
        first, second = (next(iter(one(seen).values())) for one in (model.module, tower))
    torch.testing.assert_close(first, second)
    names = choose_layers(model)
    assert len(names) == blocks, names
    layers, notes = measure_default(model, names, picture_count=0)
    assert ([layer.name for layer in layers], notes) == (names, ())
    assert reload_model(model.entry).entry == model.entry


def test_a_wrapped_hugging_face_network_has_the_same_blocks_under_its_prefix(case: tuple[Path, Any, Any, int]) -> None:
    from unitscope_pipelines.vision.models.blocks import usual_blocks

    class Wrapped(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.backbone, self.head = nn.ModuleDict({"net": network}), nn.Linear(4, 4)

    _, network, _, blocks = case
    network = getattr(network, "vision_model", network)
    bare = usual_blocks(network)
    assert usual_blocks(Wrapped(network)) == tuple(f"backbone.net.{path}" for path in bare)
    assert len(bare) in (blocks, blocks + 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network, processor = _vit()
    path = tmp_path_factory.mktemp("hf") / "vit"
    network.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessor_config.json": {"resample": 1}}, "has resample 1; there are 2, bilinear, and 3, bicubic"),
        ({"preprocessor_config.json": {"size": {"longest_edge": 9}}}, "there are height and width, and shortest_edge"),
        ({"config.json": {"model_type": "bert", "architectures": ["BertModel"]}}, "takes input_ids first"),
        ({"config.json": {"num_hidden_layers": 4}}, "lacks 16 weights of ViTModel"),
        ({"config.json": {"model_type": "nowhere", "auto_map": {"AutoConfig": "code.X"}}}, "cannot be loaded"),
        ({"model.safetensors": None}, "cannot be loaded"),
        ({"config.json": None}, "no folder with a config.json"),
    ],
)
def test_a_folder_that_cannot_be_taken_as_it_is_is_refused(
    change: dict[str, dict[str, Any] | None], message: str, folder: Path, tmp_path: Path
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name, values in change.items():
        path = tmp_path / name
        if values is None:
            path.unlink()
        else:
            path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises((ModelError, UsageError), match=message):
        load_model(f"hf:{tmp_path}")


def test_without_transformers_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'unitscope\[transformers\]'"):
        load_model(f"hf:{folder}")


class _Windows(nn.Module):
    """Blocks, and among them one whose output has windows for images."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 3, 1)) for _ in range(3)])
        self.blocks.append(nn.Sequential(nn.Identity()))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for block in self.blocks[:3]:
            image = block(image)
        windows = image.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 4, 4)
        return self.blocks[3](windows).sum((1, 2, 3)).view(len(image), -1)


def test_what_cannot_be_recorded_is_left_out_of_a_default_with_a_note(folder: Path) -> None:
    model = load_model(f"hf:{folder}")
    network = _Windows().eval().requires_grad_(False)
    blocks = tuple(f"blocks.{number}" for number in range(4))
    windowed = VisionModel(model.entry, network, model.preprocessing, blocks)
    layers, notes = measure_default(windowed, choose_layers(windowed), picture_count=0)
    assert [layer.name for layer in layers] == list(blocks[:3])
    assert notes[0].startswith("1 of 4 default layers cannot be recorded and are left out: blocks.3 (")
    alone = VisionModel(model.entry, network, model.preprocessing, blocks[3:])
    with pytest.raises(ModelError, match=r"blocks\.3"):
        measure_default(alone, choose_layers(alone), picture_count=0)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("fcn_resnet50", "segmentation"),
        ("fasterrcnn_resnet50_fpn", "boxes or keypoints"),
        ("keypointrcnn_resnet50_fpn", "boxes or keypoints"),
        ("r3d_18", "classes of videos"),
        ("raft_small", "optical flow"),
        ("quantized_resnet18", "8-bit weights"),
    ],
)
def test_torchvisions_networks_of_other_kinds_point_to_a_file(name: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"torchvision:{name} .*{what}.*file:PATH.py:FACTORY"):
        load_model(f"torchvision:{name}", "random:0")
