"""Done when 3: of a thousand odd and broken pictures each is an image, a duplicate, a named skip or a named other.

Everything is made here, by Pillow's own writers and by damage done to what they wrote.
"""

import io
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.pictures import blobs
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.corpora.rows import SUFFIXES
from unitscope_pipelines.storage.originals import Originals
from unitscope_pipelines.vision.images.preprocessing import prepare
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import PictureError
from unitscope_schemas.geometry import Size

LOOK = Preprocessing(resize_px=32, input=Size(32, 32), interpolation="bilinear", mean=(0,) * 3, std=(1,) * 3)
MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
)
NO_STILLS = {"PDF", "EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG", "PALM"}
"""Formats that Pillow writes and that hold no still picture that it decodes by itself."""


def in_mode(mode: str, number: int) -> Image.Image:
    """A small picture in any mode of Pillow's."""
    shown = blobs(number, 24 + number % 9, 24)
    match mode:
        case "I":
            return Image.fromarray(np.asarray(shown.convert("L")).astype(np.int32) * 257)
        case "I;16":
            return Image.fromarray(np.asarray(shown.convert("L")).astype(np.uint16) * 257)
        case "La" | "RGBa":
            return shown.convert({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
        case "PA":
            return shown.convert("P").convert("PA")
        case "LAB":
            profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
            lab = ImageCms.applyTransform(shown, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
            assert lab is not None
            return lab
        case _:
            return shown.convert(mode)


def written() -> Iterator[tuple[str, bytes]]:
    """Every format in every mode that Pillow can write, by suffix."""
    Image.init()
    suffixes: dict[str, str] = {}
    for suffix, name in Image.EXTENSION.items():
        suffixes.setdefault(name, suffix)
    for number, (name, mode) in enumerate((name, mode) for name in sorted(Image.SAVE) for mode in MODES):
        buffer = io.BytesIO()
        try:
            in_mode(mode, number).save(buffer, name)
        except (OSError, ValueError, KeyError, NotImplementedError, SystemError, AttributeError):
            continue
        yield suffixes.get(name, f".{name.lower()}"), buffer.getvalue()
    for number, name in enumerate(("GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO")):
        buffer = io.BytesIO()
        frames = [blobs(900 + 3 * number + frame, 24, 24) for frame in range(3)]
        frames[0].save(buffer, name, save_all=True, append_images=frames[1:])
        yield suffixes.get(name, ".mpo"), buffer.getvalue()


def damaged(data: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """What can happen to a file: cut, flipped bits, a hole, an empty file, bytes behind it."""
    yield "cut", data[: chance.randrange(1, len(data))]
    yield "begun", data[: min(len(data), 12)]
    flipped = bytearray(data)
    for _ in range(1 + len(data) // 400):
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    yield "flipped", bytes(flipped)
    start = chance.randrange(len(data))
    yield "holed", data[:start] + bytes(min(64, len(data) - start)) + data[start + 64 :]
    yield "longer", data + b"bytes behind the end" * 3


def make_corpus(root: Path) -> Counter[str]:
    """Write the folder, and return how many files there are of each kind of damage."""
    chance, kinds = random.Random(3), Counter[str]()

    def write(name: str, data: bytes, kind: str) -> None:
        path = root / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        kinds[kind] += 1

    for number, (suffix, data) in enumerate(written()):
        write(f"{number}{suffix}", data, "whole")
        write(f"{number}{suffix.upper()}", data, "copy")
        write(f"{number}.jpg", data, "misnamed")
        for kind, broken in damaged(data, chance):
            write(f"{number}{suffix}", broken, kind)
    write("empty.png", b"", "empty")
    write("text.jpg", b"no picture", "text")
    write("page.svg", b"<svg/>", "other")
    write("none", b"", "other")
    write(".hidden.jpg", b"", "other")
    write("huge.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\xff\xff\xff\0\xff\xff\xff\x08\0\0\0\0" + bytes(40), "huge")
    write("huge.ppm", b"P6 99999 99999 255\n", "huge")
    write(
        "huge.bmp",
        b"BM" + bytes(8) + b"\x36\0\0\0\x28\0\0\0\xff\xff\xff\x00\xff\xff\xff\0\1\0\x18\0" + bytes(40),
        "huge",
    )
    return kinds


def pillow_opens(data: bytes) -> bool:
    """Whether Pillow decodes the bytes as a picture of its own, in its own words."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return picture.format not in NO_STILLS
    except Exception:  # noqa: BLE001  (whatever Pillow raises)
        return False


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_of_a_thousand_odd_and_broken_pictures_each_is_an_image_a_duplicate_a_skip_or_other(tmp_path: Path) -> None:
    kinds = make_corpus(tmp_path)
    assert kinds.total() > 1000
    listed = list_corpus(str(tmp_path))
    originals, images, skips = Originals(listed.root), set[bytes](), {}
    duplicates = 0
    for path, address in zip(*listed.files.read(["path", "address"]).to_pydict().values(), strict=True):
        data = originals.read(address)
        try:
            assert prepare(data, LOOK).pixels.shape == (3, 32, 32)
        except PictureError as error:
            skips[path] = str(error)
            continue
        duplicates += data in images
        images.add(data)
    named = listed.refused.num_rows
    assert len(images) + duplicates + len(skips) + named + listed.ignored_count == kinds.total()
    assert sum(listed.others.values()) == listed.ignored_count
    whole = [path for path in skips if path.startswith(("whole/", "copy/"))]
    assert not [path for path in whole if pillow_opens((tmp_path / path).read_bytes())], "what Pillow opens is read"
    left = {path: reason for path, reason in skips.items() if pillow_opens((tmp_path / path).read_bytes())}
    accepted = ("cannot be decoded", "not finite", "longer than 64", "limit of", "bands lie apart")
    assert {path: reason for path, reason in left.items() if not any(words in reason for words in accepted)} == {}
    assert len(left) < 0.02 * kinds.total()
    unread = [path for path in tmp_path.glob("whole/*") if path.suffix.lower() not in SUFFIXES]
    assert {path.suffix for path in unread if pillow_opens(path.read_bytes())} <= {".palm"}
    assert all(reason and len(reason) < 300 and "\n" not in reason for reason in skips.values())
