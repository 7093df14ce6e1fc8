"""Parquet: pictures are found by content, and every column comes through as it was or is named (entry 17)."""

import io
import json
import uuid
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unitscope_pipelines.corpora.columns import ColumnChoice
from unitscope_pipelines.corpora.listing import Listing, list_corpus
from unitscope_pipelines.storage.originals import Originals
from unitscope_schemas.errors import CorpusError

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SHA = [bytes(range(32))] * 2


def picture(grey: int) -> bytes:
    sink = io.BytesIO()
    Image.new("L", (4, 4), grey).save(sink, "PNG")
    return sink.getvalue()


IMAGES, MASKS = [picture(1), picture(2)], [picture(201), picture(202)]


def structs(data: list[bytes | None], path: str | None = "x.png") -> pa.Array:
    return pa.array([{"bytes": each, "path": path} for each in data], STRUCT)


def listed(folder: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, **choice: str) -> Listing:
    table = pa.table(
        {name: pa.array(values) if isinstance(values, list) else values for name, values in columns.items()}
    )
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "p.parquet")
    return list_corpus(str(folder / "p.parquet"), choice=ColumnChoice(**choice))


def read(listing: Listing) -> list[bytes]:
    originals = Originals(listing.root)
    return [originals.read(address) for address in listing.files["address"].to_pylist()]


def metadata(listing: Listing) -> list[dict[str, Any]]:
    return [json.loads(text or "{}") for text in listing.files["metadata"].to_pylist()]


@pytest.mark.parametrize(
    ("columns", "choice", "found"),
    [
        ({"img": IMAGES}, {}, IMAGES),
        ({"mask": MASKS, "img": IMAGES}, {}, IMAGES),
        ({"sha": SHA, "content": IMAGES}, {}, IMAGES),
        ({"sha": SHA, "thing": pa.array(IMAGES, pa.large_binary())}, {}, IMAGES),
        ({"image": SHA, "thing": structs(IMAGES)}, {}, IMAGES),
        ({"a/b:c %": pa.array(IMAGES, pa.binary_view()), "sha": SHA}, {}, IMAGES),
        ({"mask": MASKS, "overlay": IMAGES}, {"image": "overlay"}, IMAGES),
        ({"image": structs(IMAGES), "mask": structs(MASKS)}, {"image": "mask"}, MASKS),
        ({"mask": structs(MASKS), "image": structs(IMAGES)}, {}, IMAGES),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_parquet_pictures_are_found_by_content(
    columns: dict[str, Any], choice: dict[str, str], found: list[bytes], tmp_path: Path
) -> None:
    listing = listed(tmp_path, columns, **choice)
    assert read(listing) == found
    if len(columns) > 1:
        assert any(note.startswith("pictures are of the Parquet column") for note in listing.notes)


@pytest.mark.parametrize(
    ("columns", "choice", "said"),
    [
        ({"mask": MASKS, "overlay": IMAGES}, {}, r"several columns of pictures \(mask, overlay\); .*--image-column"),
        ({"x": [1, 2]}, {}, r"no column of image bytes, only x \(int64\)"),
        ({"images": [IMAGES, IMAGES]}, {}, r"only images \(list<.*binary>\): one picture a row"),
        ({"image": structs([None, None])}, {}, r"no bytes of pictures, only their paths, for example 'x\.png'"),
        ({"img": IMAGES, "t": ["a", "b"]}, {"image": "t"}, "column 't' is string, not bytes"),
        ({"img": IMAGES}, {"image": "no"}, "has no column 'no'; it has img"),
        ({"img": IMAGES, "s": structs(IMAGES)}, {"label": "s"}, "which is no label"),
    ],
)
def test_parquet_without_one_column_of_pictures_says_what_there_is(
    columns: dict[str, Any], choice: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match=said):
        listed(tmp_path, columns, **choice)


def test_parquet_rows_without_bytes_say_which_path_they_have(tmp_path: Path) -> None:
    listing = listed(tmp_path, {"image": structs([IMAGES[0], None], "/data/y.png")})
    originals = Originals(listing.root)
    assert originals.read(listing.files["address"][0].as_py()) == IMAGES[0]
    with pytest.raises(OSError, match=r"no bytes, only the path '/data/y\.png'"):
        originals.read(listing.files["address"][1].as_py())


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (pa.array([1_000_000_001, None], pa.timestamp("ns")), "1970-01-01T00:00:01.000000001"),
        (pa.array([1_500, None], pa.timestamp("ms")), "1970-01-01T00:00:01.500000"),
        (pa.array([1_577_923_200, None], pa.timestamp("s", "Europe/Berlin")), "2020-01-02T01:00:00+01:00"),
        (pa.array([10**13, None], pa.int64()).view(pa.timestamp("s")), "318857-05-20T17:46:40"),
        (pa.array([date(2020, 1, 2), None]), "2020-01-02"),
        (pa.array([1, None], pa.time64("ns")), "00:00:00.000000001"),
        (pa.array([-1_500, None], pa.duration("ms")), "-PT1.5S"),
        (pa.array([Decimal("2.50"), None]), 2.5),
        (pa.array([Decimal("12345678901234567890.5"), None]), "12345678901234567890.5"),
        (pa.array([Decimal("7"), None]), 7),
        (pa.array([2**64 - 1, None], pa.uint64()), "18446744073709551615"),
        (pa.array([0.1, None], pa.float32()), 0.1),
        (pa.array([float("nan"), None]), "NaN"),
        (pa.array(["a", None]).dictionary_encode(), "a"),
        (pa.array(["a", None], pa.large_string()), "a"),
        (pa.array(["a", None], pa.string_view()), "a"),
        (pa.array([["a", "b"], None]), ["a", "b"]),
        (pa.array([[1, 2], None], pa.list_(pa.int32(), 2)), [1, 2]),
        (pa.array([{"t": 1}, None], pa.struct([("t", pa.timestamp("ns"))])), {"t": "1970-01-01T00:00:00.000000001"}),
        (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())), {"k": 1}),
        (pa.array([uuid.UUID(int=5).bytes, None], pa.uuid()), str(uuid.UUID(int=5))),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_parquet_values_of_every_type_come_through(values: pa.Array, kept: object, tmp_path: Path) -> None:
    said = metadata(listed(tmp_path, {"img": IMAGES, "x": values, "year": [1, 2]}))
    assert said == [{"x": kept, "year": 1}, {"year": 2}]
    assert type(said[0]["x"]) is type(kept)


def test_parquet_columns_that_are_no_metadata_are_named(tmp_path: Path) -> None:
    vectors = [[float(row + number) for number in range(500)] for row in range(2)]
    columns = {"img": IMAGES, "vector": vectors, "sha": SHA, "nothing": pa.nulls(2), "year": [1, 2]}
    listing = listed(tmp_path, columns)
    assert metadata(listing) == [{"year": 1}, {"year": 2}]
    assert "Parquet columns without any value: nothing" in listing.notes
    (left_out,) = (note for note in listing.notes if "neither" in note)
    assert left_out.endswith("vector (list<element: double>), sha (binary)")


NAMES = {"names": ["ant", "bee"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("columns", "features", "choice", "labels"),
    [
        ({"label": [0, 1]}, {"label": NAMES}, {}, [["ant"], ["bee"]]),
        ({"fine": [0, 1]}, {"fine": NAMES}, {}, [["ant"], ["bee"]]),
        ({"fine": [0, 1], "coarse": [1, -1]}, {"fine": NAMES, "coarse": NAMES}, {"label": "coarse"}, [["bee"], []]),
        ({"fine": [0, 1], "coarse": [1, -1]}, {"fine": NAMES, "coarse": NAMES}, {}, [[], []]),
        ({"label": [[0, 1], [1]]}, {"label": {"feature": NAMES, "_type": "Sequence"}}, {}, [["ant", "bee"], ["bee"]]),
        ({"label": [[0], []]}, {"label": [NAMES]}, {}, [["ant"], []]),
        ({"label": [0, 7]}, {"label": NAMES}, {}, [["ant"], ["7"]]),
        ({"class": ["x", None]}, None, {}, [["x"], []]),
        ({"label": [0, 1]}, None, {}, [["0"], ["1"]]),
    ],
)
def test_parquet_classes_under_any_name_become_labels(
    columns: dict[str, Any], features: dict[str, Any] | None, choice: dict[str, str], labels: list[str], tmp_path: Path
) -> None:
    assert listed(tmp_path, {"img": IMAGES, **columns}, features, **choice).files["labels"].to_pylist() == labels
