"""Pictures of 2 and 4 to 16 channels: from arrays and TIFF to the network's input, by stated rules of their values."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from unitscope_pipelines.vision.images.channels import shown_picture
from unitscope_pipelines.vision.images.preprocessing import from_data_config, normalise, prepare, stacked
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import ModelError, PictureError
from unitscope_schemas.geometry import Size


def how(channels: int, side: int = 11, **other: Any) -> Preprocessing:
    values = {"mean": (100.0,) * channels, "std": (50.0,) * channels, "interpolation": "bilinear", **other}
    return Preprocessing(resize_px=side, input=Size(side, side), **values)


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=values.dtype == object)
    return buffer.getvalue()


def tiff(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def pages(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in values:
            writer.write(page, photometric="minisblack", contiguous=True)
    return buffer.getvalue()


def drawn(channels: int, dtype: str = "uint8", side: int = 11) -> np.ndarray:
    """Random values over the whole range of a type, channels first."""
    chance = np.random.default_rng(channels)
    if dtype.startswith("float"):
        return chance.random((channels, side, side)).astype(dtype)
    return chance.integers(0, np.iinfo(dtype).max, (channels, side, side), dtype=dtype, endpoint=True)


_WAYS: dict[str, Callable[[np.ndarray], bytes]] = {
    "npy, channels first": npy,
    "npy, channels last": lambda values: npy(np.moveaxis(values, 0, 2)),
    "npy in Fortran's order": lambda values: npy(np.asfortranarray(values)),
    "TIFF, planes": lambda values: tiff(values, planarconfig="separate", photometric="minisblack"),
    "TIFF, samples": lambda values: tiff(np.moveaxis(values, 0, 2), planarconfig="contig", photometric="minisblack"),
    "TIFF, pages": pages,
    "TIFF, compressed": lambda values: tiff(values, compression="zlib", photometric="minisblack", predictor=True),
}


@pytest.mark.parametrize("channels", [2, 4, 5, 12, 16])
@pytest.mark.parametrize("way", _WAYS)
def test_channels_of_any_number_are_read_as_they_lie(channels: int, way: str) -> None:
    values = drawn(channels)
    prepared = prepare(_WAYS[way](values), how(channels))
    assert torch.equal(prepared.pixels, torch.from_numpy(values))
    assert (prepared.format, prepared.mode) == (way[:4].strip(",").upper()[:4].strip(), f"{channels} × uint8")
    expected = (torch.from_numpy(values).float() - 100) / 50
    torch.testing.assert_close(normalise(prepared.pixels[None], how(channels))[0], expected)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "CMYK"])
def test_pictures_with_as_many_bands_are_channels_as_they_are(mode: str) -> None:
    values = np.moveaxis(drawn(len(mode)), 0, 2)
    picture, buffer = Image.fromarray(np.ascontiguousarray(values), mode), io.BytesIO()
    picture.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    pixels = prepare(buffer.getvalue(), how(len(mode))).pixels
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), values)


_RULES: dict[str, tuple[np.ndarray, tuple[float, float] | None, np.ndarray]] = {
    "16 bits": (drawn(5, "uint16"), None, drawn(5, "uint16") / 257),
    "float32": (drawn(4, "float32"), None, drawn(4, "float32") * 255),
    "float64": (drawn(4, "float64"), None, drawn(4, "float64") * 255),
    "truth": (drawn(2) > 99, None, (drawn(2) > 99) * 255.0),
    "reflectance": (drawn(6, "uint16"), (0, 10_000), drawn(6, "uint16") / 10_000 * 255),
    "signed": (drawn(4, "int16"), (-100, 100), (drawn(4, "int16") + 100.0) / 200 * 255),
    "depth in metres": (drawn(2, "float32") * 80, (0, 80), drawn(2, "float32") * 255),
    "8 bits told to be otherwise": (drawn(4), (0, 51), drawn(4) * 5.0),
}


@pytest.mark.parametrize("rule", _RULES)
@pytest.mark.parametrize("write", [npy, lambda values: tiff(values, photometric="minisblack")], ids=["npy", "TIFF"])
def test_values_of_every_type_become_pixels_by_the_stated_rule(rule: str, write: Callable[..., bytes]) -> None:
    values, value_range, expected = _RULES[rule]
    if values.dtype == bool and write is not npy:
        pytest.skip("a TIFF of single bits is another thing")
    config: dict[str, Any] = {"input_size": (len(values), 11, 11), "crop_pct": 1.0, "mean": 0.5, "std": 0.25}
    preprocessing = from_data_config({**config, "value_range": value_range}, "file:x")
    pixels = prepare(write(values), preprocessing).pixels
    torch.testing.assert_close(pixels, torch.from_numpy(expected.astype(np.float32)), rtol=1e-5, atol=1e-3)
    if value_range:
        assert preprocessing.values == f"{value_range[0]:g} becomes 0 and {value_range[1]:g} becomes 255 in float32"
    else:
        assert "16-bit values / 257" in preprocessing.values


def test_the_resize_is_that_of_torch_in_float32() -> None:
    values = drawn(7, "float32", side=40)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None] * 255, (16, 16), mode="bicubic", antialias=True
    )[0]
    pixels = prepare(npy(values), how(7, 16, interpolation="bicubic")).pixels
    torch.testing.assert_close(pixels, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_that_says_how_it_was_held_is_turned_upright(orientation: int) -> None:
    values = drawn(5)[:, :6]
    expected = {
        1: lambda v: v,
        2: lambda v: v[:, ::-1],
        3: lambda v: v[::-1, ::-1],
        4: lambda v: v[::-1],
        5: lambda v: v.T,
        6: lambda v: np.rot90(v, -1),
        7: lambda v: v[::-1, ::-1].T,
        8: lambda v: np.rot90(v),
    }[orientation]
    data = tiff(values, photometric="minisblack", planarconfig="separate", extratags=[(274, 3, 1, orientation, True)])
    shown = shown_picture(data, how(5))
    assert np.array_equal(np.asarray(shown)[..., 0], expected(values[0]))


@pytest.mark.parametrize(
    ("data", "channels", "reason"),
    [
        (npy(drawn(3)), 4, r"of shape \(3, 11, 11\) has no 4 channels"),
        (npy(drawn(1)[0]), 4, "has 1 channels; the network takes 4"),
        (tiff(drawn(3), photometric="rgb"), 4, "has 3 channels; the network takes 4"),
        (npy(drawn(12, side=12)), 12, "12 values along both ends: which are the channels"),
        (npy(drawn(4, "float32") * 3), 4, "are not between 0 and 1; say between which they lie by value_range"),
        (npy(np.where(drawn(4) > 250, np.nan, 0.5)), 4, "values are not finite"),
        (npy(drawn(4, "int32")), 4, "values of type int32 need a value_range"),
        (npy(drawn(4).astype(complex)), 4, "values of type complex128 need a value_range"),
        (npy(np.array([{}], object)), 4, "an array of Python objects is no picture"),
        (npy(drawn(4))[:-7], 4, "the file is of another length"),
        (npy(drawn(4)[None]), 4, "is no picture of rows, columns and channels"),
        (npy(np.zeros((4, 0, 9))), 4, "is no picture of rows, columns and channels"),
        (b"\x93NUMPY\x01\x00nonsense", 4, "cannot be decoded"),
        (tiff(drawn(5))[:200], 5, "cannot be decoded|damaged header"),
        (b"II*\0nonsense", 5, "cannot be decoded|damaged header"),
        (b"", 4, "the file is empty"),
    ],
)
def test_what_is_no_picture_for_the_network_is_skipped_with_the_reason(data: bytes, channels: int, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        prepare(data, how(channels))


def test_arrays_are_pictures_of_networks_of_one_and_three_channels_too() -> None:
    values = drawn(3)
    assert torch.equal(prepare(npy(values), how(3)).pixels, torch.from_numpy(values))
    depth = drawn(1, "float32")
    torch.testing.assert_close(prepare(npy(depth[0]), how(1)).pixels, torch.from_numpy(depth * 255))


@pytest.mark.parametrize(
    ("channels", "shown", "seen"), [(2, None, (0, 1, 1)), (5, None, (0, 1, 2)), (9, (8, 3, 0), (8, 3, 0))]
)
def test_pictures_show_the_first_three_channels_or_the_chosen_ones(
    channels: int, shown: tuple[int, int, int] | None, seen: tuple[int, int, int]
) -> None:
    values = drawn(channels, "uint16")
    pixels = np.asarray(shown_picture(npy(values), how(channels, shown=shown)))
    assert np.array_equal(pixels, np.rint(values[list(seen)] / 257).astype(np.uint8).transpose(1, 2, 0))


def test_pixels_that_are_numbers_stay_as_they_are_when_they_are_normalised() -> None:
    pixels = prepare(npy(drawn(4, "float32")), how(4)).pixels
    before = pixels.clone()
    first, second = normalise(pixels[None], how(4)), normalise(pixels[None], how(4))
    assert torch.equal(pixels, before)
    assert torch.equal(first, second)


def test_a_batch_of_bytes_and_numbers_is_a_batch_of_numbers() -> None:
    bytes_of, numbers = torch.from_numpy(drawn(4)), torch.from_numpy(drawn(4, "float32"))
    assert stacked([bytes_of, bytes_of]).dtype == torch.uint8
    assert torch.equal(stacked([bytes_of, numbers])[0], bytes_of.float())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"input_size": (17, 8, 8)}, "takes 17 channels; pictures have 1 to 16"),
        ({"input_size": (4, 8, 8)}, "its data config has to give mean and std"),
        ({"input_size": (4, 8, 8), "mean": 0.5, "std": 0.5, "value_range": (3, 3)}, "it is two numbers"),
        ({"input_size": (4, 8, 8), "mean": 0.5, "std": 0.5, "shown": (0, 1, 4)}, "three of the channels 0 to 3"),
    ],
)
def test_a_data_config_of_other_channels_is_told_what_it_lacks(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        from_data_config(config, "file:x")
