"""What the answers must be, the slow plain way; shares no code with the product."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torchcodec.decoders import decode_jpeg
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform


class Look(NamedTuple):
    """How the oracle looks at a picture: resize, crop, scale, in the same library calls as the product."""

    resize: int
    crop: int
    interpolation: InterpolationMode
    mean: tuple[float, ...]
    std: tuple[float, ...]


LITE_LOOK = Look(256, 224, InterpolationMode.BICUBIC, (127,) * 3, (128,) * 3)
TORCHVISION_LOOK = Look(
    256,
    224,
    InterpolationMode.BILINEAR,
    tuple(255 * v for v in (0.485, 0.456, 0.406)),
    tuple(255 * v for v in (0.229, 0.224, 0.225)),
)


class Truth(NamedTuple):
    """Image ids in ascending order and, by layer, every unit's maximum and first location on each of them.

    `rounding` is by how much a unit's activations may differ: 1e-4 of the largest.
    """

    ids: list[str]
    activation: dict[str, np.ndarray]
    place: dict[str, np.ndarray]
    rounding: dict[str, np.ndarray]

    def beside(self, exact: "Truth") -> "Truth":
        """The same; where this forward is itself far from one in double precision, others may differ thrice as much."""
        rounding = {
            layer: np.maximum(least, 3 * np.abs(self.activation[layer] - exact.activation[layer]).max(axis=0))
            for layer, least in self.rounding.items()
        }
        return self._replace(rounding=rounding)


def seen(data: bytes, look: Look) -> torch.Tensor:
    if data.startswith(b"\x93NUMPY"):
        return _looked_at(torch.from_numpy(np.load(io.BytesIO(data))).permute(2, 0, 1), look)
    picture = Image.open(io.BytesIO(data))
    if picture.format == "JPEG" and picture.mode in ("RGB", "L") and picture.getexif().get(0x0112, 1) == 1:
        pixels = decode_jpeg(data)
    else:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
        pixels = torch.from_numpy(np.array(upright)).permute(2, 0, 1)
    if len(look.mean) == 1:
        pixels = transform.rgb_to_grayscale(pixels)
    return _looked_at(pixels, look)


def _looked_at(pixels: torch.Tensor, look: Look) -> torch.Tensor:
    pixels = transform.resize(pixels, [look.resize], interpolation=look.interpolation, antialias=True)
    pixels = transform.center_crop(pixels, [look.crop])
    mean, std = torch.tensor(look.mean)[:, None, None], torch.tensor(look.std)[:, None, None]
    return (pixels.float() - mean) / std


def measure(
    model: nn.Module,
    layers: list[str],
    corpus: Path,
    look: Look,
    last: Sequence[str] = (),
    token_first: Sequence[str] = (),
    rolled: Sequence[str] = (),
) -> Truth:
    """Plain eager forward, contiguous, nothing folded, batches of 20; then an argmax image by image.

    `last` names the layers whose maps are (image, row, col, channel), `token_first` those whose tokens are (token,
    image, channel), `rolled` the blocks of a Hiera, whose own `reroll` tells where tokens are; `conv@1` is the second
    call of `conv`.
    """
    files = sorted(path for path in corpus.rglob("*") if path.suffix in (".jpg", ".npy"))
    by_id = {}
    for path in files:
        data = path.read_bytes()
        by_id.setdefault(hashlib.sha256(data).hexdigest(), data)
    readable = {}
    for image_id, data in by_id.items():
        try:
            readable[image_id] = seen(data, look)
        except (RuntimeError, OSError):
            continue
    ids = sorted(readable)
    calls: dict[str, list[np.ndarray]] = {}
    modules = dict(model.named_modules())
    for path in {layer.partition("@")[0] for layer in layers}:
        modules[path].register_forward_hook(
            lambda _m, _i, output, path=path: calls.setdefault(path, []).append(
                (output[0] if isinstance(output, tuple) else output).detach().clone().numpy()
            )
        )
    activation: dict[str, list] = {layer: [] for layer in layers}
    place: dict[str, list] = {layer: [] for layer in layers}
    model.eval()
    precision = next(model.parameters()).dtype
    with torch.no_grad():
        for start in range(0, len(ids), 20):
            calls.clear()
            model(torch.stack([readable[image_id] for image_id in ids[start : start + 20]]).to(precision))
            for layer in layers:
                path, _, call = layer.partition("@")
                output = calls[path][int(call or 0)]
                if layer in rolled:
                    output = model.reroll(torch.from_numpy(output), int(path.rpartition(".")[2])).numpy()
                if layer in last or layer in rolled:
                    output = output.transpose(0, 3, 1, 2)
                if layer in token_first:
                    output = output.transpose(1, 0, 2)
                if output.ndim == 3:
                    output = output.transpose(0, 2, 1)
                flat = output.reshape(*output.shape[:2], -1)
                for image in flat:
                    place[layer].append(image.argmax(axis=1))
                    activation[layer].append(image.max(axis=1))
    peaks = {layer: np.stack(rows) for layer, rows in activation.items()}
    places = {layer: np.stack(rows) for layer, rows in place.items()}
    return Truth(ids, peaks, places, {layer: 1e-4 * np.abs(values).max(axis=0) for layer, values in peaks.items()})


def disagreements(truth: Truth, layer: str, unit: int, rows: list[dict], width: int, prefix: int = 0) -> list[str]:
    """How the rows of `top` differ from the truth where it is clear by more than rounding."""
    values, places = truth.activation[layer][:, unit], truth.place[layer][:, unit]
    order = np.lexsort((np.arange(len(values)), -values))[: len(rows) + 1]
    position = {image_id: number for number, image_id in enumerate(truth.ids)}
    rounding = truth.rounding[layer][unit]
    found = []
    for rank, row in enumerate(rows):
        number = position[row["image_id"]]
        if abs(row["activation"] - values[number]) > rounding:
            found.append(f"{layer}:{unit} rank {rank}: {row['activation']} is not {values[number]}")
        if number != order[rank] and abs(values[number] - values[order[rank]]) > rounding:
            found.append(f"{layer}:{unit} rank {rank}: another image is higher")
        index = row["col"] if row["row"] < 0 else prefix + row["row"] * width + row["col"]
        if number == order[rank] and index != places[number]:
            found.append(f"{layer}:{unit} rank {rank}: at {index}, not {places[number]}")
    return found
