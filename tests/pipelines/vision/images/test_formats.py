"""Entries 14 and 21: pictures of every format and every kind of value, against Pillow's and NumPy's own words."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from tests.pictures import blobs
from unitscope_pipelines.vision.images.pictures import RULES, decoded, open_picture, summed_notes, upright
from unitscope_pipelines.vision.images.preprocessing import prepare
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import PictureError
from unitscope_schemas.geometry import Size

SHOWN = blobs(1, 48, 64)
RAMP = np.linspace(0, 1, 48 * 64).reshape(48, 64)


def encoded(picture: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff(values: NDArray[np.generic], **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def read(data: bytes) -> NDArray[np.int64]:
    return np.asarray(upright(open_picture(data))).astype(np.int64)


def grey(data: bytes) -> NDArray[np.int64]:
    """The picture's grey values; all three colours are equal."""
    pixels = read(data)
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


EXACT = ["PNG", "BMP", "DIB", "TIFF", "PPM", "QOI", "TGA", "PCX", "SGI", "ICO", "DDS", "IM"]
ROUGH = {"JPEG": 8.0, "AVIF": 8.0, "WEBP": 8.0, "JPEG2000": 2.0, "MPO": 8.0}


@pytest.mark.filterwarnings("ignore:IM image format")
@pytest.mark.parametrize("name", [*EXACT, *ROUGH])
def test_every_format_of_pictures_is_read(name: str) -> None:
    options = {"sizes": [(64, 48)]} if name == "ICO" else {}
    pixels = read(encoded(SHOWN, name, **options))
    assert np.abs(pixels - np.asarray(SHOWN, np.int64)).mean() <= ROUGH.get(name, 0)


@pytest.mark.parametrize(
    ("name", "mode"), [("ICNS", "RGB"), ("GIF", "P"), ("MSP", "1"), ("XBM", "1"), ("BLP", "P"), ("SPIDER", "F")]
)
def test_formats_of_few_colours_or_sizes_are_read_as_pillow_converts_them(name: str, mode: str) -> None:
    data = encoded(SHOWN.convert(mode), name)
    expected = Image.open(io.BytesIO(data)).convert("L" if mode == "F" else "RGB").convert("RGB")
    assert (read(data) == np.asarray(expected)).all()


MOVING: dict[str, dict[str, object]] = {
    "GIF": {"append_images": [blobs(2, 48, 64), blobs(3, 48, 64)]},
    "PNG": {"append_images": [blobs(2, 48, 64), blobs(3, 48, 64)]},
    "WEBP": {"append_images": [blobs(2, 48, 64), blobs(3, 48, 64)], "lossless": True},
    "AVIF": {"append_images": [blobs(2, 48, 64), blobs(3, 48, 64)]},
    "TIFF": {"append_images": [blobs(2, 48, 64), blobs(3, 48, 64)]},
    "MPO": {"append_images": [blobs(2, 48, 64), blobs(3, 48, 64)]},
}


@pytest.mark.parametrize("name", MOVING)
def test_the_first_frame_of_several_is_read_and_said(name: str) -> None:
    several = decoded(open_picture(encoded(SHOWN, name, save_all=True, **MOVING[name])))
    alone = decoded(open_picture(encoded(SHOWN, name, **({"lossless": True} if name == "WEBP" else {}))))
    assert several.notes == ("the first of 3 frames",)
    assert alone.notes == ()
    difference = np.asarray(several.picture, np.int64) - np.asarray(alone.picture, np.int64)
    assert np.abs(difference).mean() <= (6 if name in ("AVIF", "GIF") else 0)
    assert summed_notes(["the first of 3 frames", "the first of 9 frames; values from 1 to 2"])[0].startswith("2 ")


WIDE: dict[str, tuple[bytes, NDArray[np.float64]]] = {
    "float 0 to 1": (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), RAMP * 255),
    "float 0 to 255": (encoded(Image.fromarray((RAMP * 255).astype(np.float32)), "TIFF"), RAMP * 255),
    "float of any range": (encoded(Image.fromarray((RAMP * 7 - 3).astype(np.float32)), "TIFF"), RAMP * 255),
    "float map": (encoded(Image.fromarray(RAMP.astype(np.float32)), "PPM"), RAMP * 255),
    "float, white is zero": (tiff(RAMP.astype(np.float32), photometric="miniswhite"), 255 - RAMP * 255),
    "whole 0 to 1": (encoded(Image.fromarray((RAMP > 0.5).astype(np.int32)), "TIFF"), (RAMP > 0.5) * 255.0),
    "whole 0 to 255": (encoded(Image.fromarray((RAMP * 255).astype(np.int32)), "TIFF"), RAMP * 255),
    "whole 0 to 65535": (encoded(Image.fromarray((RAMP * 65535).astype(np.int32)), "TIFF"), RAMP * 255),
    "whole of any range": (encoded(Image.fromarray((RAMP * 2e9 - 1e9).astype(np.int32)), "TIFF"), RAMP * 255),
    "unsigned of 32 bits": (tiff((RAMP * (2**32 - 1)).astype(np.uint32)), RAMP * 255),
    "signed of 16 bits": (tiff((RAMP * 60000 - 30000).astype(np.int16)), RAMP * 255),
    "16 bits": (tiff((RAMP * 65535).astype(np.uint16)), RAMP * 255),
    "16 bits, bytes swapped": (tiff((RAMP * 65535).astype(">u2"), byteorder=">"), RAMP * 255),
    "16 bits, white is zero": (tiff((RAMP * 65535).astype(np.uint16), photometric="miniswhite"), 255 - RAMP * 255),
    "16 bits, dark": (tiff((RAMP * 200).astype(np.uint16)), RAMP * 200 / 257),
    "16 bits as PNG": (encoded(Image.fromarray((RAMP * 65535).astype(np.uint16)), "PNG"), RAMP * 255),
    "16 bits as PGM": (encoded(Image.fromarray((RAMP * 65535).astype(np.int32)), "PPM"), RAMP * 255),
    "16 bits as JPEG 2000": (encoded(Image.fromarray((RAMP * 65535).astype(np.uint16)), "JPEG2000"), RAMP * 255),
}


@pytest.mark.parametrize("kind", WIDE)
def test_values_of_more_than_8_bits_keep_their_shades(kind: str) -> None:
    data, expected = WIDE[kind]
    assert np.abs(grey(data) - expected).max() <= 1.01


def test_a_tiff_of_12_bits_keeps_its_shades() -> None:
    values = (RAMP * 4095).astype(np.uint16).ravel()
    packed = np.empty((values.size // 2, 3), np.uint8)
    packed[:, 0] = values[::2] >> 4
    packed[:, 1] = (values[::2] & 15) << 4 | values[1::2] >> 8
    packed[:, 2] = values[1::2] & 255
    entries = [(256, 64), (257, 48), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 48), (279, packed.size)]
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + tags + bytes(4)
    assert np.abs(grey(data.ljust(122, b"\0") + packed.tobytes()) - RAMP * 255).max() <= 1.1


def test_shades_of_wide_values_are_said_and_differ_from_each_other() -> None:
    ramp, turned = (encoded(Image.fromarray(values.astype(np.float32)), "TIFF") for values in (RAMP, 1 - RAMP))
    assert (read(ramp) != read(turned)).mean() > 0.9
    assert decoded(open_picture(ramp)).notes == ("values within 0 to 1 multiplied by 255",)
    assert any("within 0 to 1" in rule for rule in RULES)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_skipped_with_their_count(bad: float) -> None:
    values = RAMP.astype(np.float32)
    values[0, :5] = bad
    with pytest.raises(PictureError, match="5 of its 3072 values are not finite"):
        read(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(RAMP.astype(np.float16)), "1 bands of 16-bit floating-point numbers"),
        (tiff(RAMP.astype(np.float64)), "1 bands of 64-bit floating-point numbers"),
        (tiff(np.zeros((5, 8, 8), np.uint8), photometric="minisblack", planarconfig="separate"), "5 bands of 8-bit"),
        (tiff(np.zeros((3, 8, 8), np.uint16), photometric="rgb", planarconfig="separate"), "bands lie apart"),
        (b"II*\0\x08\0\0\0", "a TIFF"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "HEIC|damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in one of the formats JPEG"),
    ],
)
def test_what_the_decoder_does_not_read_is_refused_with_what_it_is(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        read(data)


def png(colour: int, bits: int, rows: list[bytes], key: bytes, width: int) -> bytes:
    """A PNG file with a transparent colour, written by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"tRNS", key) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(0, 16, [struct.pack(">4H", 0, 257, 25700, 65535)], b"\x64\x64", 4), [0, 1, 255, 255]),
        (png(0, 16, [struct.pack(">4H", 0, 257, 25700, 65535)], b"\0\0", 4), [255, 1, 100, 255]),
        (png(0, 16, [struct.pack(">4H", 100, 257, 25700, 65535)], b"\0\x64", 4), [255, 1, 100, 255]),
        (png(0, 8, [bytes([0, 1, 100, 255])], b"\0\x64", 4), [0, 1, 255, 255]),
        (png(0, 4, [bytes([0x0A, 0x5F])], b"\0\x0a", 4), [0, 255, 85, 255]),
        (png(0, 2, [bytes([0b00011011])], b"\0\x01", 4), [0, 255, 170, 255]),
        (png(0, 1, [bytes([0b01000000])], b"\0\0", 4), [255, 255, 255, 255]),
        (png(2, 16, [struct.pack(">6H", *[257] * 3, *[51400] * 3)], struct.pack(">3H", *[51400] * 3), 2), [1, 255]),
    ],
)
def test_the_transparent_shade_of_any_depth_is_white_and_no_other(data: bytes, expected: list[int]) -> None:
    assert grey(data)[0].tolist() == expected


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "PA"])
def test_transparency_of_any_mode_lies_over_white(mode: str) -> None:
    layered = SHOWN.convert("RGBA")
    layered.putalpha(Image.fromarray((RAMP * 255).astype(np.uint8)))
    few = layered.quantize(16)
    made = {"P": few, "PA": few.convert("PA")}.get(mode, layered.convert(mode if mode not in ("P", "PA") else "RGBA"))
    data = encoded(made, "TIFF" if mode == "PA" else "PNG")
    shown = Image.open(io.BytesIO(data)).convert("RGBA")
    alpha = np.asarray(shown)[:, :, 3:] / 255
    expected = np.asarray(shown)[:, :, :3] * alpha + 255 * (1 - alpha)
    assert np.abs(read(data) - expected).max() <= 1


def test_lab_and_cmyk_show_the_colours_of_the_picture() -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(SHOWN, to_lab)
    assert lab is not None
    assert np.abs(read(encoded(lab, "TIFF")) - np.asarray(SHOWN, np.int64)).mean() < 4
    for name in ("JPEG", "TIFF"):
        assert np.abs(read(encoded(SHOWN.convert("CMYK"), name)) - np.asarray(SHOWN, np.int64)).mean() < 8
    assert np.abs(read(encoded(SHOWN.convert("YCbCr"), "TIFF")) - np.asarray(SHOWN, np.int64)).mean() < 2


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_colour_profile_is_not_applied_and_named(name: str) -> None:
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    look = Preprocessing(resize_px=48, input=Size(48, 48), interpolation="bilinear", mean=(0,) * 3, std=(1,) * 3)
    plain, same, named, broken = (
        prepare(encoded(SHOWN, name, **({"icc_profile": profile} if profile else {})), look)
        for profile in (b"", standard, other, b"no profile")
    )
    assert plain.notes == same.notes == ()
    assert named.notes[0].startswith("the colour profile ")
    assert "cannot be read" in "".join(broken.notes)
    assert (named.pixels == plain.pixels).all()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation_of_a_file_is_upright_as_pillow_turns_it(name: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(SHOWN, name, exif=exif, **({"compression": "tiff_lzw"} if name == "TIFF" else {}))
    assert (read(data) == np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))).all()


def test_wide_values_are_turned_upright_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF", exif=exif)
    assert np.abs(grey(data) - np.rot90(RAMP, 3) * 255).max() <= 1
