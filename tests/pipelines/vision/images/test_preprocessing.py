"""Pictures from a file's bytes to the network's input, bit by bit."""

import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchcodec import decoders as codec
from torchvision.io import ImageReadMode, decode_jpeg

from tests import oracle
from tests.pictures import blobs
from unitscope_pipelines.vision.images.preprocessing import normalise, prepare
from unitscope_pipelines.vision.models.models import load_model
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import PictureError
from unitscope_schemas.geometry import Size

LITE = Preprocessing(resize_px=256, input=Size(224, 224), interpolation="bicubic", mean=(127,) * 3, std=(128,) * 3)


def encoded(picture: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(427, 640), (640, 427), (224, 224), (1000, 300), (90, 120)])
def test_prepared_pictures_equal_the_oracle_bit_by_bit(size: tuple[int, int]) -> None:
    for data in (encoded(blobs(1, *size), "JPEG", quality=90), encoded(blobs(2, *size), "PNG")):
        ours = normalise(prepare(data, LITE).pixels[None], LITE)[0]
        assert torch.equal(ours, oracle.seen(data, oracle.LITE_LOOK))


@pytest.mark.filterwarnings("ignore:The image decoding")
def test_jpeg_pixels_are_those_of_the_decoder_of_before_so_that_atlases_keep_their_keys() -> None:
    chance = np.random.default_rng(5)
    for number in range(60):
        height, width = chance.integers(1, 400, 2).tolist()
        picture = blobs(number, height, width).convert("L" if number % 5 == 0 else "RGB")
        options = {"quality": int(chance.integers(5, 99)), "progressive": number % 3 == 0, "optimize": number % 2 == 0}
        if picture.mode == "RGB":
            options["subsampling"] = number % 4 % 3
        data = encoded(picture, "JPEG", **options)
        before = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        assert torch.equal(codec.decode_jpeg(data), before)


def test_the_default_model_prepares_as_its_weights_expect() -> None:
    assert load_model("efficientnet-lite:0").preprocessing == LITE


def test_exif_orientation_is_honoured() -> None:
    picture = blobs(3, 80, 120)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    plain = encoded(picture, "PNG")
    assert torch.equal(prepare(turned, LITE).pixels, prepare(plain, LITE).pixels)
    assert prepare(turned, LITE).placement.image == Size(80, 120)


def test_every_pixel_mode_becomes_three_channels_that_look_alike() -> None:
    picture = blobs(4)
    plain = prepare(encoded(picture, "PNG"), LITE).pixels.float()
    see_through = picture.convert("RGBA")
    for data, most in (
        (encoded(picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256), "PNG"), 12),
        (encoded(picture.convert("CMYK"), "TIFF"), 2),
        (encoded(see_through, "PNG"), 0),
        (encoded(picture, "WEBP", lossless=True), 0),
        (encoded(picture, "BMP"), 0),
    ):
        pixels = prepare(data, LITE).pixels
        assert pixels.shape == (3, 224, 224)
        assert (pixels.float() - plain).abs().mean() <= most


def test_transparent_pixels_show_white() -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert prepare(encoded(clear, "PNG"), LITE).pixels.min() == 255


def test_sixteen_bit_grey_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = prepare(encoded(Image.fromarray(ramp), "PNG"), LITE).pixels
    assert pixels.min() <= 40
    assert pixels.max() >= 215


def test_only_the_first_frame_counts() -> None:
    first, second = blobs(5), blobs(6)
    moving = encoded(first, "GIF", save_all=True, append_images=[second])
    assert torch.equal(prepare(moving, LITE).pixels, prepare(encoded(first, "GIF"), LITE).pixels)


def huge_png(width: int, height: int) -> bytes:
    """A small PNG file that claims to be a large black picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"plain text, no picture", "not a picture"),
        (huge_png(12_000, 12_000), "12000 × 12000 pixels are more than the limit"),
        (huge_png(40_000, 40_000), "limit"),
        (huge_png(2, 9_000), "longer than 64 times"),
        (encoded(blobs(7), "JPEG")[:1500], "cannot be decoded"),
        (encoded(blobs(7), "PNG")[:1500], "cannot be decoded"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ],
)
def test_unusable_bytes_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        prepare(data, LITE)


def test_a_mislabelled_picture_is_read_by_its_content() -> None:
    assert prepare(encoded(blobs(8), "PNG"), LITE).format == "PNG"
