"""Atomic writes into an atlas, and which shards are done: the only place that writes."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from unitscope_pipelines.storage.long_tables.long_table import ROWS_AT_ONCE, LongTable
from unitscope_pipelines.storage.stores import Store, is_full
from unitscope_schemas import layout
from unitscope_schemas.entries.document import damage, sealed_text, unsealed_text
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import StorageError
from unitscope_schemas.manifest import Manifest, MeasuredLayers, Receipt, parse_manifest

Document = TypeVar("Document", bound=BaseModel)

_GROUP_ROWS = 4 * ROWS_AT_ONCE
_SPLIT, _DELTA = "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"
_ENCODINGS = {"activation": _SPLIT, "unit": _DELTA, "rank": _DELTA, "row": _SPLIT, "col": _SPLIT}


def write_atomically(store: Store, path: str, write: Callable[[Path], None], rows: int) -> Part:
    """Let `write` fill a temporary file of this machine, then give it its place in one step; raises StorageError."""
    try:
        with store.writing(path) as temporary:
            write(temporary)
            with temporary.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            part = Part(path=path, rows=rows, size_bytes=temporary.stat().st_size, sha256=digest)
            store.put(temporary, part)
    except OSError as error:
        if is_full(error):
            raise StorageError(
                f"no space left for {path} in {store.scratch}; finished shards are kept: free space, then run again"
            ) from error
        raise StorageError(f"cannot write {path} in {store.scratch}: {error.strerror or error}") from error
    return part


def write_table(store: Store, path: str, table: pa.Table, row_group_size: int | None = None) -> Part:
    """Write a Parquet part in the encodings that measured smallest for its columns; vectors have no statistics."""
    plain = [field.name for field in table.schema if not pa.types.is_nested(field.type)]

    def write(file: Path) -> None:
        with parquet_writer(file, table.schema, image_encoding=_DELTA, keep_statistics=plain) as writer:
            writer.write_table(table, row_group_size=row_group_size or max(1, table.num_rows))

    return write_atomically(store, path, write, table.num_rows)


def write_long_table(store: Store, path: str, table: LongTable, columns: list[str]) -> Part:
    """Write columns of a long table as a Parquet part, so many rows at a time."""
    plain = [name for name in columns if not pa.types.is_nested(table.schema.field(name).type)]

    def write(file: Path) -> None:
        schema = pa.schema([table.schema.field(name) for name in columns])
        with parquet_writer(file, schema, image_encoding=_DELTA, keep_statistics=plain) as writer:
            for rows in table.pieces(_GROUP_ROWS, columns):
                writer.write_table(rows)

    return write_atomically(store, path, write, table.num_rows)


def parquet_writer(
    file: Path | pa.NativeFile,
    schema: pa.Schema,
    image_encoding: str = _SPLIT,
    keep_statistics: bool | list[str] = True,
    footers: list[pq.FileMetaData] | None = None,
) -> pq.ParquetWriter:
    """Open a Parquet writer; `image` is delta-encoded where it ascends, byte-split where it is permuted.

    What the footer says is added to `footers`. Pages have checksums, by which a reader of some of them can trust them.

    Activations and permuted numbers hardly shrink: LZ4 makes real peaks 0.2 bytes larger, ranked rows 0.3, and halves
    the time that decoding them takes.
    """
    known = {**_ENCODINGS, "image": image_encoding}
    encodings = {name: known[name] for name in schema.names if name in known}
    hard = {"activation", *(["image"] if image_encoding == _SPLIT else [])}
    plain = [name for name in schema.names if name not in encodings]
    return pq.ParquetWriter(
        file,
        schema,
        compression={name: "lz4" if name in hard else "zstd" for name in schema.names},
        compression_level={name: 1 for name in schema.names if name not in hard},
        column_encoding=encodings,
        use_dictionary=plain,
        write_statistics=keep_statistics,
        write_page_checksum=True,
        metadata_collector=footers,
    )


def write_model(store: Store, path: str, model: BaseModel) -> Part:
    """Write a JSON document atomically, with a digest of itself at its end."""
    return write_atomically(store, path, lambda file: _write_text(file, sealed_text(model)), rows=1)


def read_model(data: bytes, kind: type[Document]) -> Document:
    """Read a JSON document; raises ValueError, in words for people, where it is damaged."""
    try:
        return kind.model_validate_json(unsealed_text(data.decode()))
    except ValidationError as error:
        raise ValueError(damage(error)) from None


def read_manifest(store: Store) -> Manifest | None:
    """Read the seal of the atlas, None if none was sealed yet; raises FormatError or AtlasError."""
    text = store.read(layout.MANIFEST)
    return None if text is None else parse_manifest(text.decode(errors="replace"), str(store.address))


def read_measured(store: Store, atlas_key: str) -> MeasuredLayers | None:
    """Read what an earlier run measured for this atlas key, None if none did."""
    data = store.read(layout.measured(atlas_key))
    if data is None:
        return None
    try:
        measured = read_model(data, MeasuredLayers)
    except ValueError:
        return None
    return measured if measured.atlas_key == atlas_key else None


def read_receipts(store: Store, atlas_key: str) -> list[Receipt]:
    """Read the receipts of all finished shards of this atlas key, in order of names; damaged ones do not count."""
    receipts = []
    sizes = sizes_in(store)
    names = sorted(path for path in sizes if path.startswith("receipts/") and path.endswith(".json"))
    for data in store.read_all(names):
        try:
            receipt = read_model(data, Receipt)
        except ValueError:
            continue
        if receipt.atlas_key == atlas_key and all(is_present(sizes, part) for part in receipt.parts()):
            receipts.append(receipt)
    return receipts


def remove_unfinished(store: Store) -> int:
    """Delete and count what killed runs left behind: half written files, and parts of shards without a receipt.

    The next run may cut shards elsewhere. Call only while holding the lock, and while no shard is scanned.
    """
    paths, manifest = list(sizes_in(store)), read_manifest(store)
    finished = {shard for path in paths if (shard := layout.shard_of_receipt(path)) is not None}
    finished |= {receipt.shard for receipt in manifest.shards} if manifest else set()
    torn = [path for path in paths if (shard := layout.shard_of_part(path)) is not None and shard not in finished]
    store.delete(torn)
    return store.remove_unfinished() + len(torn)


def sizes_in(store: Store) -> dict[str, int]:
    """Return the bytes of every file of an atlas by its path: one listing, whatever the number of parts to look for."""
    return {file.path: file.size_bytes for file in store.walk()}


def is_present(sizes: Mapping[str, int], part: Part) -> bool:
    """Tell whether a part is there in its full size."""
    return sizes.get(part.path) == part.size_bytes


def read_part(store: Store, part: Part, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet part of the atlas, or some of its columns."""
    with store.hold(part) as file:
        return pq.read_table(file, columns=columns, partitioning=None)


def _write_text(file: Path, text: str) -> None:
    file.write_text(text)
