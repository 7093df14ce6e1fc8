"""The recipe of docs/preprocessing.md, run as it stands there, beside what is stored."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from tests.conftest import TINY_LAYERS
from tests.pictures import blobs
from unitscope_pipelines.vision.images.preprocessing import normalise, prepare
from unitscope_pipelines.vision.models.models import load_model
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.geometry import Size
from unitscope_schemas.manifest import atlas_key
from unitscope_services.atlas.atlas import Atlas

pytestmark = pytest.mark.long

PAGE = Path(__file__).parent.parent.parent / "docs" / "preprocessing.md"
Recipe = Callable[[str, dict[str, Any]], Tensor]


@pytest.fixture(scope="module")
def network_input() -> Recipe:
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(text, names)
    recipe: Recipe = names["network_input"]
    return recipe


def test_preprocessing_redone_by_the_published_recipe_gives_the_stored_values(
    network_input: Recipe, tiny_atlas: Path, tiny_corpus: Path
) -> None:
    """Peaks of all units of three layers, on pictures of three shapes; an older resize under the same word does not."""
    atlas, network = Atlas(tiny_atlas), load_model().module
    how = atlas.manifest.model_dump(mode="json")["preprocessing"]
    outputs: dict[str, Tensor] = {}
    for layer in TINY_LAYERS:
        module = network.get_submodule(layer)
        module.register_forward_hook(lambda _m, _i, output, layer=layer: outputs.update({layer: output}))
    worst, older = {}, {}
    for number in (0, 1, 14):
        path = next(tiny_corpus.rglob(f"{number:03d}.jpg"))
        image = atlas.find_image(str(path.relative_to(tiny_corpus)))
        with torch.inference_mode():
            for errors, size in ((worst, network_input(str(path), how)), (older, _older(path, how))):
                network(size)
                for layer in TINY_LAYERS:
                    stored = atlas.activations(layer, image)
                    error = np.abs(outputs[layer].amax((2, 3))[0].numpy() - stored).max() / np.abs(stored).max()
                    errors[layer] = max(errors.get(layer, 0), float(error))
    assert max(worst.values()) < 1e-4
    assert max(older.values()) > 1e-2


def _older(path: Path, how: dict[str, Any]) -> Tensor:
    """Return what the recipe gives where its resize does not antialias."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    short = how["resize_px"] / min(pixels.shape[1:])
    size = [int(side * short) for side in pixels.shape[1:]]
    resized = functional.resize(pixels, size, functional.InterpolationMode("bicubic"), antialias=False)
    cut = functional.center_crop(resized, how["input"]).float()
    return ((cut - torch.tensor(how["mean"])[:, None, None]) / torch.tensor(how["std"])[:, None, None])[None]


_KINDS: dict[str, Callable[[Image.Image], tuple[Image.Image, str, dict[str, Any]]]] = {
    "large JPEG": lambda picture: (picture, "JPEG", {"quality": 92}),
    "grey JPEG": lambda picture: (picture.convert("L"), "JPEG", {}),
    "turned JPEG": lambda picture: (picture, "JPEG", {"exif": _orientation(6)}),
    "PNG": lambda picture: (picture, "PNG", {}),
    "transparent PNG": lambda picture: (_transparent(picture), "PNG", {}),
    "palette GIF": lambda picture: (picture.convert("P"), "GIF", {}),
    "WebP": lambda picture: (picture, "WEBP", {"lossless": True}),
}


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


def _transparent(picture: Image.Image) -> Image.Image:
    alpha = Image.fromarray(
        np.linspace(0, 255, picture.width * picture.height).reshape(picture.size[::-1]).astype("u1")
    )
    picture.putalpha(alpha)
    return picture


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("size", [(150, 90), (70, 131)])
def test_the_recipe_makes_the_same_input_of_every_kind_of_picture_of_8_bits(
    kind: str, size: tuple[int, int], network_input: Recipe, tmp_path: Path
) -> None:
    how = Preprocessing(resize_px=36, input=Size(32, 28), interpolation="bicubic", mean=(120, 110, 100), std=(60,) * 3)
    picture, file_format, options = _KINDS[kind](blobs(3, *size))
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    (tmp_path / "picture").write_bytes(buffer.getvalue())
    expected = normalise(prepare(buffer.getvalue(), how).pixels[None], how)
    torch.testing.assert_close(network_input(str(tmp_path / "picture"), how.model_dump()), expected)


def test_manifests_say_who_decoded_resized_and_ran(tiny_atlas: Path) -> None:
    manifest = Atlas(tiny_atlas).manifest
    for shard in manifest.shards:
        assert {
            "torch",
            "torchvision",
            "torchcodec",
            "numpy",
            "pillow",
            "pillow/libjpeg_turbo",
        } <= shard.libraries.keys()
    assert manifest.libraries["torch"] == [manifest.shards[0].libraries["torch"]]
    how = manifest.model_dump(mode="json")["preprocessing"]
    for word in ("torchvision", "antialias=True", "uint8"):
        assert word in how["resizer"]
    assert "float32" in how["normaliser"]


def test_keys_of_atlases_are_what_they_were_before_more_was_said(tiny_atlas: Path) -> None:
    """The digest of EfficientNet-Lite0's preprocessing as earlier versions computed it; another rule is another key."""
    manifest = Atlas(tiny_atlas).manifest
    said = manifest.preprocessing
    assert said.digested == {
        "resize_px": 256,
        "input": [224, 224],
        "interpolation": "bicubic",
        "mean": [127.0, 127.0, 127.0],
        "std": [128.0, 128.0, 128.0],
        "decoder": "torchvision for plain JPEG, Pillow for all else",
    }
    changed = said.model_copy(update={"resizer": "another"}), said.model_copy(update={"value_range": (0.0, 9.0)})
    names = list(TINY_LAYERS)
    keys = {atlas_key(manifest.model, one, names, "fp32", 8, "cpu") for one in (said, *changed)}
    assert len(keys) == 3
    assert manifest.atlas_key in keys
