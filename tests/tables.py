"""Reading what an atlas holds, for comparisons between atlases."""

import json
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitscope_pipelines.storage.parts import read_manifest, read_part, write_atomically, write_model, write_table
from unitscope_pipelines.storage.ranked_file import write_with_footers
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part, UnitFooter
from unitscope_schemas.manifest import BLOCK_UNITS, Manifest

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
    images = version_images(manifest, store_of(atlas))
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
        rows = ranked_rows(atlas, manifest, name)
        rows["image"] = [ids[number] for number in rows["image"]]
        found[f"ranked {name}"] = rows
    found["vectors"] = {"bytes": [vectors_of(atlas, manifest).tobytes().hex()]}
    return found


def resealed(manifest: Manifest, *parts: Part) -> Manifest:
    """The manifest with other digests of parts at the same paths, wherever it names them."""
    content = json.loads(manifest.model_dump_json())
    for part in parts:
        for place in named(content, part.path):
            place |= json.loads(part.model_dump_json())
    return Manifest.model_validate_json(json.dumps(content))


def named(content: object, path: str) -> list[dict]:
    """Every place of a document that names a part."""
    if isinstance(content, dict) and content.get("path") == path:
        return [content]
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    return [place for value in inner for place in named(value, path)]


def give_unit_footers(atlas: Path) -> None:
    """Write the ranked parts anew as those of large segments are: with a footer of each unit's own."""
    store, manifest = store_of(atlas), manifest_of(atlas)
    changed: list[Part] = []
    for own in (own for segment in manifest.segments for own in segment.layers.values()):
        footers: list[UnitFooter | None] = []
        for block, part in enumerate(own.ranked):
            ranked = read_part(store, part)
            channels = range(block * BLOCK_UNITS, min((block + 1) * BLOCK_UNITS, own.units.rows))
            units = [ranked.filter(pc.equal(ranked["unit"], channel)) for channel in channels]

            def write(file: Path, units: list[pa.Table] = units, found: list[UnitFooter | None] = footers) -> None:
                found.extend(write_with_footers(file, units))

            changed.append(write_atomically(store, part.path, write, part.rows))
        rows = [footer and footer._asdict() for footer in footers]
        column = pa.array(rows, tables.SEGMENT_UNITS.field(tables.FOOTER).type)
        units = read_part(store, own.units).append_column(tables.SEGMENT_UNITS.field(tables.FOOTER), column)
        changed.append(write_table(store, own.units.path, units))
    write_model(store, layout.MANIFEST, resealed(manifest, *changed))


def ranked_parts(manifest: Manifest, layer: str | None = None) -> list[Part]:
    """The ranked parts of all segments, of one layer or of all."""
    return [
        part
        for segment in manifest.segments
        for name, own in segment.layers.items()
        if layer in (None, name)
        for part in own.ranked
    ]


def ranked_rows(atlas: Path, manifest: Manifest, layer: str) -> Rows:
    """The ranked rows of a layer over all segments, merged the plain way: sorted by activation, then image."""
    pieces = []
    for segment, numbers in zip(manifest.segments, numbers_of(atlas, manifest), strict=True):
        for part in segment.layers[layer].ranked:
            for row in pq.read_table(atlas / part.path, partitioning=None).to_pylist():
                pieces.append(row | {"image": int(numbers[row["image"]])})
    pieces.sort(key=lambda row: (row["unit"], -row["activation"], row["image"]))
    for _, own in groupby(pieces, key=lambda row: row["unit"]):
        for rank, row in enumerate(own):
            row["rank"] = rank
    return {name: [row[name] for row in pieces] for name in tables.RANKED.names}


def numbers_of(atlas: Path, manifest: Manifest) -> list[np.ndarray]:
    """The numbers of the images of each segment, by row."""
    return [
        np.arange(segment.image_count)
        if segment.numbers is None
        else pq.read_table(atlas / segment.numbers.path, partitioning=None)["image"].to_numpy()
        for segment in manifest.segments
    ]


def vectors_of(atlas: Path, manifest: Manifest) -> np.ndarray:
    """The vectors of all patches, image × region."""
    regions = len(manifest.embedding.regions)
    found = np.empty((manifest.stored_count, regions, manifest.embedding.width), np.float16)
    for segment, numbers in zip(manifest.segments, numbers_of(atlas, manifest), strict=True):
        found[numbers] = np.load(atlas / segment.patches.vectors.path).reshape(-1, *found.shape[1:])
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


def turn_into_version_2(atlas: Path) -> None:
    """Write the version of one segment as it was before there were segments; what nobody reads of it holds nothing."""
    store, manifest = store_of(atlas), manifest_of(atlas)
    content = json.loads((atlas / layout.MANIFEST).read_text())
    (segment,), built = content["segments"], manifest.built
    images = write_table(store, layout.images_of(built), version_images(manifest, store))
    database, rows = (write_atomically(store, path, Path.touch, images.rows) for path in layout.lookup_of_2(built))
    left = ("segments", "embedding", "digest", "groups", "first_ranks", "unread")
    layers = [layer | {"ranked": segment["layers"][layer["spec"]["name"]]["ranked"]} for layer in content["layers"]]
    old = {name: value for name, value in content.items() if name not in left} | {
        "format_version": 2,
        "layers": layers,
        "images": images.model_dump(),
        "hot": {"database": database.model_dump(), "images": rows.model_dump(), "ranks": content["first_ranks"]},
        "patches": content["embedding"] | segment["patches"],
        "shared": None,
    }
    (atlas / layout.MANIFEST).write_text(json.dumps(old))
    for part in (segment["tables"]["images"], segment["tables"]["lookup"], segment["tables"]["files"]):
        (atlas / part["path"]).unlink()
