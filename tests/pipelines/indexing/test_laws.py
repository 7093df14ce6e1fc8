"""What the laws say of an atlas beside the files, bytes and memory that it has."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tables import manifest_of
from unitscope_pipelines.indexing.laws import Scale, StageCost, costs, remarks
from unitscope_schemas.errors import UsageError


def of(stages: list[StageCost], name: str) -> StageCost:
    return next(stage for stage in stages if stage.stage == name)


def test_an_atlas_has_as_many_files_and_bytes_as_the_laws_say(tiny_atlas: Path) -> None:
    manifest = manifest_of(tiny_atlas)
    size = Scale(
        images=manifest.stored_count,
        units=sum(entry.spec.units for entry in manifest.layers),
        layers=len(manifest.layers),
        regions=len(manifest.embedding.regions),
        vector_width=manifest.embedding.width,
        shard_size=-(-manifest.stored_count // len(manifest.shards)),
    )
    parts = {part.path: part.size_bytes for part in manifest.parts()}
    for receipt in manifest.shards:
        parts[f"receipts/{receipt.shard}.json"] = (tiny_atlas / f"receipts/{receipt.shard}.json").stat().st_size
    parts["manifest.json"] = (tiny_atlas / "manifest.json").stat().st_size
    whole = of(costs(size), "all")
    assert whole.files == pytest.approx(len(parts), rel=0.1)
    assert whole.gb == pytest.approx(sum(parts.values()) / 1e9, rel=0.2)


def test_what_grows_with_images_and_what_does_not() -> None:
    one = costs(Scale(images=8_000_000, units=2_000))
    two = costs(Scale(images=16_000_000, units=2_000))
    for name, grows in (
        ("scan", ("files", "gb", "requests", "hours")),
        ("rank", ("gb", "hours")),
        ("list", ("hours",)),
    ):
        for figure in grows:
            assert getattr(of(two, name), figure) == pytest.approx(2 * getattr(of(one, name), figure), rel=0.01)
    assert of(two, "rank").memory_gb == of(one, "rank").memory_gb, "a segment is ranked at a time"
    assert of(two, "scan").memory_gb == of(one, "scan").memory_gb


def test_nodes_divide_hours_and_the_driver_has_one() -> None:
    size = Scale(images=8_000_000, units=2_000, price=2.0)
    one, four = costs(size), costs(replace(size, nodes=4))
    assert of(four, "scan").hours == pytest.approx(of(one, "scan").hours / 4)
    assert of(four, "catalogue").hours == of(one, "catalogue").hours
    assert of(one, "scan").cost == pytest.approx(2 * of(one, "scan").hours)
    assert of(costs(replace(size, price=None)), "all").cost is None


def test_limits_are_said() -> None:
    large = Scale(images=10**9, units=2_000, nodes=64)
    said = " ".join(remarks(large, costs(large)))
    assert "GB of memory in one process" in said
    assert "a larger --shard-size makes fewer" in said
    small = Scale(images=10_000, units=500)
    assert remarks(small, costs(small)) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"images": 0}, "images must be more than 0"),
        ({"images": 2**31}, "several atlases"),
        ({"nodes": -1}, "nodes must be more than 0"),
        ({"layers": 9, "units": 8}, "9 layers"),
        ({"images_per_s": float("nan")}, "images_per_s must be more than 0"),
    ],
)
def test_sizes_that_no_atlas_has_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Scale(**{"images": 10, "units": 10, **wrong})  # type: ignore[arg-type]
