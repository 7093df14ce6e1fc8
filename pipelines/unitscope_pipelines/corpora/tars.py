"""Tar shards in WebDataset's layout: members with one key are one sample; nothing is extracted."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from unitscope_pipelines.corpora.rows import ListedRows, folder_of, is_picture
from unitscope_pipelines.corpora.values import as_labels, as_metadata, read_json
from unitscope_pipelines.storage.filesystem import Folder, StoredFile
from unitscope_schemas.addresses import Address, Range
from unitscope_schemas.errors import CorpusError

_DESCRIPTIONS = ("cls", "json", "txt")
_MOST_DESCRIPTION_BYTES = 1_000_000
_AT_ONCE_BYTES = 1 << 24
"""Bytes that are read at once from an object store. A tar has no list of its members, only a head before each, so it is
read whole: in few pieces that is sooner than a request for each member."""


class Member(NamedTuple):
    """A picture in a tar: its name there, and its bytes."""

    name: str
    part: Range


@dataclass
class Sample:
    """The consecutive members of a tar with one key."""

    key: str
    pictures: list[Member] = field(default_factory=list)
    descriptions: dict[str, bytes] = field(default_factory=dict)
    """Contents of the members that describe the pictures, by their suffix: cls, json, txt."""
    other_count: int = 0
    """Count of the members that are neither."""


def list_tar(folder: Folder, shard: StoredFile, rows: ListedRows) -> int:
    """Add a shard's pictures and count its other members; raises CorpusError that names a shard that is broken.

    A picture's path is the shard's and its member's name. Its label is what the member `.cls` of its key holds,
    else `label` in `.json`, else `.txt`, else its folder within the shard.
    """
    ignored_count = 0
    try:
        with folder.open(shard.path, _AT_ONCE_BYTES) as source, tarfile.open(fileobj=source, mode="r:") as tar:
            for sample in _samples(tar, source):
                ignored_count += sample.other_count
                labels, metadata = _described(shard.path, sample.descriptions)
                for name, part in sample.pictures:
                    path, address = f"{shard.path}/{name}", Address(shard.path, part)
                    rows.add(path, address, shard, labels or folder_of(name), metadata)
    except (OSError, tarfile.TarError) as error:
        raise CorpusError(f"tar {shard.path!r} is broken or cannot be read: {error}; restore or remove it") from None
    return ignored_count


def _samples(tar: tarfile.TarFile, source: IO[bytes]) -> Iterator[Sample]:
    """Read the members of a tar, sample by sample, as they come."""
    sample = Sample("")
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # it would keep them all: a gigabyte for a million
        if not member.isreg():
            continue
        folder, slash, name = member.name.removeprefix("./").rpartition("/")
        stem, _, suffix = name.partition(".")
        key = f"{folder}{slash}{stem}"
        if key != sample.key:
            yield sample
            sample = Sample(key)
        if is_picture(name):
            sample.pictures.append(Member(f"{folder}{slash}{name}", Range(member.offset_data, member.size)))
        elif suffix in _DESCRIPTIONS and member.size <= _MOST_DESCRIPTION_BYTES:
            source.seek(member.offset_data)
            sample.descriptions[suffix] = source.read(member.size)
        else:
            sample.other_count += 1
    yield sample


def _described(shard: str, descriptions: dict[str, bytes]) -> tuple[tuple[str, ...], str | None]:
    """Return labels and metadata of a sample from the members that describe it."""
    if not descriptions:
        return (), None
    texts = {suffix: content.decode(errors="replace").strip() for suffix, content in descriptions.items()}
    described = {}
    if "json" in texts:
        try:
            described = read_json(texts["json"])
        except ValueError as error:
            raise CorpusError(f"tar {shard!r} has a .json member that is none: {error}; repair or remove it") from None
    if not isinstance(described, dict):
        described = {"json": described}
    labels = [texts.get("cls"), described.pop("label", None), texts.get("txt")]
    found = next((said for value in labels if (said := as_labels(value))), ())
    if "txt" in texts and found != (texts["txt"],):
        described.setdefault("txt", texts["txt"])
    return found, as_metadata(described)
