"""Reading what an atlas holds, for comparisons between atlases."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from unitscope_pipelines.storage.parts import read_manifest
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas.manifest import Manifest

Rows = dict[str, list]


def manifest_of(atlas: Path) -> Manifest:
    manifest = read_manifest(store_of(atlas))
    assert manifest is not None
    return manifest


def move_root(atlas: Path, corpus: Path) -> None:
    """Let an atlas say that its pictures lie in a copy of their folder."""
    manifest = manifest_of(atlas)
    (origin,) = manifest.corpus.roots
    roots = (origin.model_copy(update={"root": str(corpus), "corpus": str(corpus)}),)
    entry = manifest.corpus.model_copy(update={"root": str(corpus), "roots": roots})
    (atlas / "manifest.json").write_text(manifest.model_copy(update={"corpus": entry}).model_dump_json())


def contents(atlas: Path, paths: bool = True) -> dict[str, Rows]:
    """Every row that questions read, with images by id; without `paths` nothing that depends on file names."""
    manifest = manifest_of(atlas)
    images = pq.read_table(atlas / manifest.images.path, partitioning=None)
    ids = images["image_id"].to_pylist()
    cut = {"shard", "shard_row", "modified_ns"} | (
        set()
        if paths
        else {"path", "other_paths", "address", "other_addresses", "label", "labels", "statements", "metadata"}
    )
    found = {"images": images.drop_columns(list(cut & set(images.column_names))).to_pydict()}
    skipped = pq.read_table(atlas / manifest.skipped.path, partitioning=None)
    found["skipped"] = skipped.select(["path", "reason"] if paths else ["reason"]).to_pydict()
    for entry in manifest.layers:
        name = entry.spec.name
        units = pq.read_table(atlas / entry.units.path, partitioning=None).to_pydict()
        if not paths:
            del units["top_labels"]
        found[f"units {name}"] = units
        ranked = [pq.read_table(atlas / part.path, partitioning=None) for part in entry.ranked]
        rows = {column: [v for table in ranked for v in table[column].to_pylist()] for column in ranked[0].column_names}
        rows["image"] = [ids[number] for number in rows["image"]]
        found[f"ranked {name}"] = rows
    vectors = np.load(atlas / manifest.patches.vectors.path)
    found["vectors"] = {"bytes": [vectors.tobytes().hex()]}
    return found


def difference(first: dict[str, Rows], second: dict[str, Rows]) -> list[str]:
    """Names of the tables and columns that are not equal, NaN being equal to NaN."""
    assert first.keys() == second.keys()
    return [
        f"{table}.{column}"
        for table in first
        for column in first[table]
        if repr(first[table][column]) != repr(second[table][column])
    ]
