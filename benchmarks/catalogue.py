"""What the stages cost that join a listing with what shards recorded: `python -m benchmarks.catalogue FILES`.

A synthetic corpus, listed and scanned, of any size: no picture and no peak. Each stage is one of an index run, in the
order of the run; memory is the most that the process ever held at its end, without what the stages before had to hold.
"""

import argparse
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.report import print_table, save
from unitscope_pipelines.corpora.listing import Listing
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.sealing.image_tables import write_groups, write_image_tables
from unitscope_pipelines.indexing.sealing.segments import cut, segment_name
from unitscope_pipelines.indexing.sealing.version_images import known_ids, pending_files, version_images
from unitscope_pipelines.indexing.sealing.versions import version_name
from unitscope_pipelines.storage.long_tables.long_table import ROWS_AT_ONCE, LongTable
from unitscope_pipelines.storage.parts import write_table
from unitscope_pipelines.storage.stores import Store, store_of
from unitscope_schemas import layout, tables
from unitscope_schemas.manifest import Receipt

SHARD_FILES = 1_024
_KEY = "0" * 64
_TWINS, _COPIES = 0.02, 0.01
"""Shares of the files that are nearly, and wholly, the picture before them."""


def listed(count: int) -> Listing:
    """A listing of files in a thousand folders, which are their labels."""
    starts = range(0, count, ROWS_AT_ONCE)
    batches = (_listed_rows(start, min(start + ROWS_AT_ONCE, count), len(str(count))) for start in starts)
    return Listing("/corpus", LongTable.written(batches, tables.LISTED), tables.SKIPPED.empty_table(), {})


def _listed_rows(start: int, end: int, width: int) -> pa.RecordBatch:
    numbers, count = pa.array(np.arange(start, end)), end - start
    names = pc.utf8_lpad(numbers.cast(pa.string()), width, "0")
    labels = pc.utf8_slice_codeunits(names, 0, 3)
    paths = pc.binary_join_element_wise(pc.binary_join_element_wise("photographs of animals", labels, "/"), names, "/")
    files = {
        "path": pc.binary_join_element_wise(paths, ".jpg", ""),
        "label": labels,
        "labels": pa.ListArray.from_arrays(pa.array(np.arange(count + 1), pa.int32()), labels),
        "metadata": pa.nulls(count, pa.string()),
        "statements": pa.nulls(count, pa.string()),
        "address": pc.binary_join_element_wise("file:", paths, ".jpg", ""),
        "file_bytes": pa.array(np.full(count, 100_000)),
        "modified_ns": numbers,
    }
    return pa.record_batch([files[name] for name in tables.LISTED.names], schema=tables.LISTED)


def scan(store: Store, corpus: Listing) -> list[Receipt]:
    """Write what shards record of the files, and return their receipts."""
    nothing = write_table(store, layout.skipped("0" * 16), tables.SKIPPED.empty_table())
    return [_shard(store, files, number, nothing) for number, files in enumerate(corpus.files.pieces(SHARD_FILES))]


def _shard(store: Store, files: pa.Table, number: int, nothing: Any) -> Receipt:
    name, count, chance = f"{number:016x}", len(files), np.random.default_rng(number)
    digests = chance.bytes(32 * count)
    ids = pa.array([digests[32 * row : 32 * row + 32].hex() for row in range(count)])
    hashes = np.frombuffer(chance.bytes(32 * count), np.uint8).reshape(count, 32).copy()
    twins = 1 + np.flatnonzero(chance.random(count - 1) < _TWINS)
    hashes[twins] = hashes[twins - 1]
    own = np.arange(count)
    copies = 1 + np.flatnonzero(chance.random(count - 1) < _COPIES)
    own[copies] = own[copies - 1]
    images = np.unique(own)
    read = {name: files[name] for name in tables.FILE_KEY}
    read |= {"size_bytes": files["file_bytes"], "image_id": ids.take(pa.array(own))}
    fixed: dict[str, Any] = {"format": "JPEG", "mode": "RGB", "notes": None}
    known = {
        "row": pa.array(np.arange(len(images)), pa.int32()),
        "image_id": ids.take(pa.array(images)),
        "gradient_hash": pa.array([row.tobytes() for row in hashes[images]], pa.binary(32)),
        "tint": pa.array([b"abc"] * len(images), pa.binary(3)),
    }
    columns = [
        known[field.name] if field.name in known else pa.array([fixed.get(field.name, 224)] * len(images), field.type)
        for field in tables.SCANNED
    ]
    table = pa.table([read[name] for name in tables.FILES.names], tables.FILES.names).cast(tables.FILES)
    return Receipt(
        shard=name,
        atlas_key=_KEY,
        files=write_table(store, layout.files(name), table),
        scanned=write_table(store, layout.scanned(name), pa.table(columns, schema=tables.SCANNED)),
        skipped=nothing,
        peaks={},
        embeddings=nothing,
        forward_count=len(images),
        forward="synthetic",
        seconds=0,
    )


def peak_gib() -> float:
    """The most memory that the process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=int)
    parser.add_argument("--atlases", type=Path, default=Path("build/bench"), help="the folder it is written to")
    options = parser.parse_args()
    folder = options.atlases / f"catalogue-{options.files}"
    shutil.rmtree(folder, ignore_errors=True)
    store = store_of(folder)
    rows: list[dict[str, Any]] = []

    def stage(name: str, run: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - started
        rows.append(
            {
                "stage": name,
                "seconds": round(seconds, 1),
                "µs a file": round(1e6 * seconds / options.files, 2),
                "GiB at most so far": round(peak_gib(), 2),
            }
        )
        print_table(f"{options.files:,} files", rows[-1:])
        return found

    corpus = stage("(a listing is made)", lambda: listed(options.files))
    receipts = stage("(shards are written)", lambda: scan(store, corpus))
    stage("ids that are known", lambda: known_ids(receipts, store))
    pending = stage("files that are pending", lambda: pending_files(corpus, receipts, store))
    assert not len(pending)
    made = stage("images of the version", lambda: version_images(corpus, receipts, store))
    images, name = made.images, stage("its name", lambda: version_name(_KEY, None, made))
    parts = cut(
        np.arange(len(images), dtype=np.int32), images["shard"], IndexConfig.model_fields["segment_images"].default
    )
    segments = stage("segments are cut", lambda: images.split(parts) if len(parts) > 1 else [images])
    for number, part in enumerate(segments):
        segment = stage(f"name of segment {number}", lambda part=part: segment_name(_KEY, part))
        stage(
            f"its {len(part):,} images",
            lambda part=part, segment=segment: write_image_tables(store, segment, name, part),
        )
    stage("groups of near duplicates", lambda: write_groups(store, name, images))
    print_table(f"{options.files:,} files, {images.num_rows:,} images", rows)
    save(f"catalogue_{options.files}", {"files": options.files, "images": images.num_rows, "stages": rows})


if __name__ == "__main__":
    main()
