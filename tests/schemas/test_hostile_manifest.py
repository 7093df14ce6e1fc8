"""A manifest is input: names and paths in it that lead elsewhere are refused where it is read, in one place."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unitscope_schemas.entries.document import digest_of, sealed_text
from unitscope_schemas.errors import AtlasError
from unitscope_schemas.layout import layer_fault, path_fault
from unitscope_schemas.manifest import parse_manifest

Change = Callable[[dict[str, Any]], None]


def moved(*steps: str | int, to: object) -> Change:
    """A change of one value, by the steps that lead to it."""

    def change(content: dict[str, Any]) -> None:
        place: Any = content
        for step in steps[:-1]:
            place = place[step]
        place[steps[-1]] = to

    return change


def swap_statistics(content: dict[str, Any]) -> None:
    """Two layers' parts in each other's place."""
    one, other = content["layers"][:2]
    one["units"], other["units"] = other["units"], one["units"]


def swap_ranks(content: dict[str, Any]) -> None:
    layers = content["segments"][0]["layers"]
    one, other = list(layers)[:2]
    layers[one]["ranked"], layers[other]["ranked"] = layers[other]["ranked"], layers[one]["ranked"]


def reorder_blocks(content: dict[str, Any]) -> None:
    list(content["segments"][0]["layers"].values())[1]["ranked"].reverse()


def drop_block(content: dict[str, Any]) -> None:
    list(content["segments"][0]["layers"].values())[1]["ranked"].pop()


def second_segment(content: dict[str, Any]) -> None:
    """A segment that is there twice, and so has images that are not."""
    content["segments"].append(content["segments"][0])


def other_layers(content: dict[str, Any]) -> None:
    layers = content["segments"][0]["layers"]
    layers["../x"] = layers.pop(next(iter(layers)))


def swap_shard_parts(content: dict[str, Any]) -> None:
    shard = content["shards"][0]
    shard["files"], shard["scanned"] = shard["scanned"], shard["files"]


HOSTILE: dict[str, Change] = {
    "a version that leads out": moved("version", to="../../X"),
    "a key that leads out": moved("atlas_key", to="../" * 20),
    "a built version that leads out": moved("removed", to={"table": {}, "stale": 0, "built": "../../X"}),
    "a layer that leads out": moved("layers", 0, "spec", "name", to="../../../X"),
    "a layer named by steps": moved("layers", 0, "spec", "name", to=".."),
    "a layer with a line break": moved("layers", 0, "spec", "name", to="a\nb"),
    "an embedded layer that leads out": moved("embedding", "layer", to="../x"),
    "an embedded layer that is not recorded": moved("embedding", "layer", to="elsewhere"),
    "a part by a whole path": moved("segments", 0, "tables", "images", "path", to="/etc/passwd"),
    "a part of a drive": moved("segments", 0, "tables", "files", "path", to="C:/secret"),
    "a part that leads out": moved("layers", 0, "units", "path", to="units/../../secret"),
    "a part by a home": moved("skipped", "path", to="~/secret"),
    "a part with a zero byte": moved("skipped", "path", to="skipped/a\x00b"),
    "a digest that names a file": moved("first_ranks", "sha256", to="../../secret"),
    "a shard that leads out": moved("shards", 0, "shard", to="../../x"),
    "a shard's part elsewhere": moved("shards", 0, "files", "path", to="files/../secret"),
    "peaks of a layer that leads out": lambda content: content["shards"][0]["peaks"].update(
        {"../x": next(iter(content["shards"][0]["peaks"].values()))}
    ),
    "ranked parts of another layer": swap_ranks,
    "statistics of another layer": swap_statistics,
    "blocks in another order": reorder_blocks,
    "a block that is missing": drop_block,
    "a segment that leads out": moved("segments", 0, "name", to="../../X"),
    "a segment that is there twice": second_segment,
    "a segment of a layer that leads out": other_layers,
    "a segment of other images": moved("segments", 0, "image_count", to=39),
    "no segment": moved("segments", to=[]),
    "vectors of other images": moved("segments", 0, "patches", "vectors", "rows", to=3),
    "numbers of another segment": lambda content: content["segments"][0].update(
        numbers=content["segments"][0]["tables"]["images"]
    ),
    "a layer that is there twice": lambda content: content["layers"].append(content["layers"][0]),
    "parts of a shard in each other's place": swap_shard_parts,
    "another count of images": moved("corpus", "image_count", to=41),
    "another count of units": moved("layers", 0, "spec", "units", to=15),
    "the images of another table": lambda content: content["segments"][0]["tables"].update(images=content["skipped"]),
    "half of a segment's lookup files": lambda content: content["segments"][0]["tables"].update(files=None),
    "a part of before that leads out": lambda content: content.update(
        unread=[content["skipped"] | {"path": "hot-../../x.duckdb"}]
    ),
    "groups of another table": lambda content: content.update(groups=content["skipped"]),
}


@pytest.fixture(scope="module")
def content(tiny_atlas: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((tiny_atlas / "manifest.json").read_text())
    del loaded["digest"]
    return loaded


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_that_leads_elsewhere_is_refused(name: str, content: dict[str, Any]) -> None:
    changed = copy.deepcopy(content)
    HOSTILE[name](changed)
    with pytest.raises(AtlasError, match=r"manifest of atlas a is damaged: \d+ faults, first at .+ \(.+\)"):
        parse_manifest(json.dumps(changed), "a")


def test_a_manifest_as_it_was_sealed_is_read(content: dict[str, Any]) -> None:
    manifest = parse_manifest(json.dumps(content), "a")
    assert parse_manifest(manifest.model_dump_json(), "a").model_dump() == manifest.model_dump()
    assert parse_manifest(sealed_text(manifest), "a").digest == digest_of(manifest.model_dump_json(indent=1))
    assert all(path_fault(part.path) is None for part in manifest.parts())


@pytest.mark.parametrize("name", ["layer1.0", "block@1", "fpn@out0", "Schicht ä", "a b", "...", "conv-1_x"])
def test_names_that_modules_have_are_names_of_layers(name: str) -> None:
    assert layer_fault(name) is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\x00", "a\u2028b", "x" * 201, "\udc80"])
def test_names_that_can_name_no_folder_are_not(name: str) -> None:
    assert layer_fault(name)
