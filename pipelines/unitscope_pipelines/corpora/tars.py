"""Tar shards in WebDataset's layout: members with one key are one sample; nothing is extracted."""

import json
import tarfile
from collections.abc import Iterator
from typing import IO

from unitscope_pipelines.corpora.rows import ListedRows, as_label, as_metadata, folder_of, is_picture
from unitscope_pipelines.storage.filesystem import File, Place
from unitscope_schemas.addresses import Address, Range
from unitscope_schemas.errors import CorpusError

_SIDES = ("cls", "json", "txt")
_MOST_SIDE_BYTES = 1_000_000
_AT_ONCE_BYTES = 1 << 24
"""Read at once from an object store. A tar has no list of its members, only a head before each, so it is read whole:
in few pieces that is sooner than a request for each member."""

Picture = tuple[str, Range]


def list_tar(place: Place, shard: File, rows: ListedRows) -> int:
    """Add a shard's pictures and count its other members; raises CorpusError that names a shard that is broken.

    A picture's path is the shard's and its member's name. Its label is what the member `.cls` of its key holds,
    else `label` in `.json`, else `.txt`, else its folder within the shard.
    """
    ignored_count = 0
    try:
        with place.open(shard.path, _AT_ONCE_BYTES) as source, tarfile.open(fileobj=source, mode="r:") as tar:
            for pictures, sides, other_count in _samples(tar, source):
                ignored_count += other_count
                label, metadata = _described(shard.path, sides)
                for name, part in pictures:
                    path, address = f"{shard.path}/{name}", Address(shard.path, part)
                    rows.add(path, address, shard, label or folder_of(name), metadata)
    except (OSError, tarfile.TarError) as error:
        raise CorpusError(f"tar {shard.path!r} is broken or cannot be read: {error}; restore or remove it") from None
    return ignored_count


def _samples(tar: tarfile.TarFile, source: IO[bytes]) -> Iterator[tuple[list[Picture], dict[str, bytes], int]]:
    """Consecutive members with one key: pictures, contents of what describes them, and how many are neither."""
    key: str | None = None
    pictures: list[Picture] = []
    sides: dict[str, bytes] = {}
    other_count = 0
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # it would keep them all: a gigabyte for a million
        if not member.isreg():
            continue
        folder, slash, name = member.name.removeprefix("./").rpartition("/")
        stem, _, suffix = name.partition(".")
        own = f"{folder}{slash}{stem}"
        if own != key:
            yield pictures, sides, other_count
            key, pictures, sides, other_count = own, [], {}, 0
        if is_picture(name):
            pictures.append((f"{folder}{slash}{name}", Range(member.offset_data, member.size)))
        elif suffix in _SIDES and member.size <= _MOST_SIDE_BYTES:
            source.seek(member.offset_data)
            sides[suffix] = source.read(member.size)
        else:
            other_count += 1
    yield pictures, sides, other_count


def _described(shard: str, sides: dict[str, bytes]) -> tuple[str | None, str | None]:
    """Label and metadata of a key from its members."""
    if not sides:
        return None, None
    texts = {suffix: content.decode(errors="replace").strip() for suffix, content in sides.items()}
    described = {}
    if "json" in texts:
        try:
            described = json.loads(texts["json"])
        except ValueError as error:
            raise CorpusError(f"tar {shard!r} has a .json member that is none: {error}; repair or remove it") from None
    if not isinstance(described, dict):
        described = {"json": described}
    labels = [texts.get("cls"), described.pop("label", None), texts.get("txt")]
    label = next((found for one in labels if (found := as_label(one)) is not None), None)
    if "txt" in texts and label != texts["txt"]:
        described.setdefault("txt", texts["txt"])
    return label, as_metadata(described)
