"""The images of several segments answer as those of one: rows, ids, paths, labels, metadata of several types."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from unitscope_pipelines.indexing.sealing.image_tables import write_image_tables
from unitscope_pipelines.indexing.sealing.segments import write_numbers
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.stores import FolderStore
from unitscope_schemas import tables
from unitscope_schemas.errors import AtlasError, UnitscopeError
from unitscope_schemas.manifest import Manifest
from unitscope_services.atlas.catalogue import Catalogue
from unitscope_services.atlas.image_filter import ImageFilter
from unitscope_services.atlas.image_rows import ImageRows
from unitscope_services.atlas.parts import Parts

COUNT = 60
METADATA = [
    {"year": 1999, "kind": "a", "mixed": 1},
    {"year": 2004, "kind": "b", "mixed": 2.5},
    {"year": 2011, "mixed": "two"},
    {"year": 2**60, "flag": True},
    {"flag": False, "list": [1, "x"]},
    None,
]
CONDITIONS = ["year>=2004", "year is null", "kind=a", "mixed=two", "mixed in 1,2.5", "flag=true", "flag is not null"]


def images(seed: int) -> pa.Table:
    """Images with paths of several files, labels and metadata of several types."""
    chance = random.Random(seed)
    ids = sorted(f"{chance.getrandbits(256):064x}" for _ in range(COUNT))
    labels = [chance.sample(["cat", "dog", "fish", "elk"], chance.randint(0, 2)) for _ in ids]
    metadata = [chance.choice(METADATA) for _ in ids]
    columns: dict[str, list[Any]] = {field.name: [0] * COUNT for field in tables.IMAGES}
    columns |= {
        "image": list(range(COUNT)),
        "image_id": ids,
        "path": [f"{chance.choice('abC')}/{number:02d}.jpg" for number in range(COUNT)],
        "other_paths": [[f"copies/{number:02d}.jpg"] if number % 7 == 0 else [] for number in range(COUNT)],
        "address": [f"file:{number}" for number in range(COUNT)],
        "other_addresses": [[]] * COUNT,
        "label": [own[0] if own else None for own in labels],
        "labels": labels,
        "metadata": [None if one is None else json.dumps(one) for one in metadata],
        "size_bytes": [chance.randint(1, 10**6) for _ in ids],
        "format": ["JPEG"] * COUNT,
        "mode": ["RGB"] * COUNT,
        "notes": [None] * COUNT,
        "duplicate_group": [None] * COUNT,
        "shard": [f"{number % 3:016x}" for number in range(COUNT)],
        "statements": [None] * COUNT,
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in tables.IMAGES], schema=tables.IMAGES)


def manifest(folder: Path, rows: pa.Table, owner: np.ndarray) -> Manifest:
    """What a manifest says of the images of segments, and of nothing else."""
    store, segments = FolderStore(folder), []
    for number in range(int(owner.max()) + 1):
        own = np.flatnonzero(owner == number).astype(np.int32)
        written = write_image_tables(store, f"{number:016x}", "0" * 16, LongTable.of(rows.take(pa.array(own))))
        numbers = write_numbers(store, f"{number:016x}", "0" * 16, own) if owner.any() else None
        segments.append(SimpleNamespace(tables=written, numbers=numbers, image_count=len(own)))
    told = SimpleNamespace(segments=segments, stored_count=COUNT, removed=None, groups=None)
    return cast(Manifest, told)


@pytest.fixture(params=range(3))
def both(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Catalogue, Catalogue]:
    """The catalogue of one segment, and that of four which hold the same images."""
    monkeypatch.setattr("unitscope_services.atlas.catalogue._group_codes", lambda *_: np.full(COUNT, -1, np.int32))
    rows, chance = images(request.param), np.random.default_rng(request.param)
    owners = [np.zeros(COUNT, int), chance.permutation(np.repeat(np.arange(4), [30, 20, 9, 1]))]
    opened = []
    for number, owner in enumerate(owners):
        folder = tmp_path / str(number)
        folder.mkdir()
        opened.append(Catalogue(Parts(FolderStore(folder)), manifest(folder, rows, owner)))
    return opened[0], opened[1]


def test_rows_are_those_of_one_segment(both: tuple[Catalogue, Catalogue]) -> None:
    one, several = both
    asked = np.random.default_rng(0).permutation(COUNT)
    assert one.rows(asked) == several.rows(asked)
    assert one.rows([7, 7, 0]) == several.rows([7, 7, 0])
    assert several.rows([]) == []
    names = ["size_bytes", "shard_row"]
    for name, values in one.images.values(asked, names).items():
        assert values.tolist() == several.images.values(asked, names)[name].tolist()


def test_ids_and_paths_are_found_in_every_segment(both: tuple[Catalogue, Catalogue]) -> None:
    one, several = both
    for entry in one.rows(range(COUNT)):
        for reference in (entry.image_id, entry.image_id[:12], entry.path, *entry.other_paths):
            assert several.find(reference) == entry
        assert several.by_id(entry.image_id) == entry
        assert [several.images.position(text) for text in (entry.image_id, entry.image_id + "~")] == [
            entry.image,
            entry.image + 1,
        ]
    assert several.by_id("f" * 64) is several.known("nowhere.jpg") is None
    for text in ("A/", "copies", "7.JPG", "nothing", ""):
        assert several.holding(text, 9) == one.holding(text, 9)


def test_labels_are_counted_and_listed_over_segments(both: tuple[Catalogue, Catalogue]) -> None:
    one, several = both
    assert several.labels() == one.labels()
    asked = np.random.default_rng(1).permutation(COUNT)[:40]
    for first, second in zip(one.image_labels.of(asked), several.image_labels.of(asked), strict=True):
        assert first.tolist() == second.tolist()
    for condition in ("label=cat", "label not in cat,dog", "label is null", "label^=e"):
        passing = ImageFilter(where=(condition,))
        assert chosen(several, passing) == chosen(one, passing)
    assert several.labelled("dog").tolist() == one.labelled("dog").tolist()


@pytest.mark.parametrize("condition", [*CONDITIONS, "path^=copies", "path^=a/"])
def test_conditions_hold_over_segments_whatever_types_their_columns_have(
    condition: str, both: tuple[Catalogue, Catalogue]
) -> None:
    one, several = both
    assert several.metadata_names == one.metadata_names
    passing = ImageFilter(where=(condition,))
    assert chosen(several, passing) == chosen(one, passing)


def test_rows_of_chosen_images_are_found_in_their_shards(both: tuple[Catalogue, Catalogue]) -> None:
    one, several = both
    mask = np.random.default_rng(2).random(COUNT) < 0.5
    first, second = one.shards(mask), several.shards(mask)
    assert first.keys() == second.keys()
    assert all(sorted(first[shard].tolist()) == sorted(second[shard].tolist()) for shard in first)


def test_numbers_that_are_not_those_of_all_images_are_refused(tmp_path: Path) -> None:
    told = manifest(tmp_path, images(0), np.arange(COUNT) % 2)
    first = told.segments[0]
    told.segments[1].numbers = first.numbers
    with pytest.raises(AtlasError, match="numbers of images"):
        ImageRows(Parts(FolderStore(tmp_path)), told)


def chosen(catalogue: Catalogue, passing: ImageFilter) -> list[bool] | str:
    """Tell which images pass a filter, or what a refusal of its condition says."""
    try:
        mask = catalogue.chosen(passing)
    except UnitscopeError as error:
        return str(error)
    return [True] * COUNT if mask is None else mask.tolist()
