"""Tar shards in WebDataset's layout: members with one key are one sample; nothing is extracted."""

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from unitscope_pipelines.corpora.rows import ListedRows, folder_of, is_picture
from unitscope_pipelines.corpora.values import as_labels, as_metadata, read_json
from unitscope_pipelines.storage.compressed import is_compressed, unpack
from unitscope_pipelines.storage.filesystem import Folder
from unitscope_pipelines.storage.stored_file import StoredFile
from unitscope_schemas.addresses import Address, Range
from unitscope_schemas.errors import CorpusError
from unitscope_schemas.tables import UNREADABLE

_DESCRIPTIONS = ("cls", "json", "txt")
_MOST_DESCRIPTION_BYTES = 1_000_000
_AT_ONCE_BYTES = 1 << 24
"""Bytes that are read at once from an object store. A tar has no list of its members, only a head before each, so it is
read whole: in few pieces that is sooner than a request for each member."""
_BLOCK = tarfile.BLOCKSIZE
_NO_MEMBERS = (b"V", b"D")
"""Types of GNU tar's volume label and list of a folder, which are no files."""
_DAMAGED = (tarfile.TarError, ValueError, OverflowError)
"""Errors that Python's reader raises on damaged heads."""


@dataclass
class Members:
    """The members of a tar, by name."""

    files: dict[str, Range] = field(default_factory=dict)
    """Where the bytes of each file are; of several with one name the first."""
    links: dict[str, str] = field(default_factory=dict)
    """What hard and symbolic links lead to."""
    descriptions: dict[str, bytes] = field(default_factory=dict)
    """Contents of the members that may describe a picture."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Name and reason of what cannot be read; the empty name is the tar itself."""

    def add(self, member: tarfile.TarInfo, size_bytes: int, source: IO[bytes]) -> None:
        """Note a member of a tar of so many bytes, and read what it says of pictures."""
        name = member.name.removeprefix("./")
        if name in self.files or name in self.links:
            self.faults.append((name, "a second member of this name, which is not read: the first one counts"))
        elif member.islnk() or member.issym():
            beside = posixpath.dirname(name) if member.issym() else ""
            self.links[name] = posixpath.normpath(posixpath.join(beside, member.linkname))
        elif member.issparse():
            self.faults.append((name, "a sparse member, which lies in pieces; pack it without --sparse"))
        elif not member.isreg():
            self.faults.append((name, "a device, a named pipe or the like, which holds no picture"))
        elif member.offset_data + member.size > size_bytes:
            self.faults.append((name, "the tar ends within this member"))
        else:
            self.files[name] = Range(member.offset_data, member.size)
            if _key(name)[1] in _DESCRIPTIONS:
                self._read_description(name, member, source)

    def follow_links(self) -> None:
        """Give each link the bytes of the file it leads to, through further links too; name those that lead nowhere."""
        for name, target in self.links.items():
            seen = {name}
            while target in self.links and target not in seen:
                seen.add(target)
                target = self.links[target]
            if target not in self.files:
                self.faults.append((name, f"a link to {target}, which is not in the tar"))
                continue
            self.files[name] = self.files[target]
            if target in self.descriptions:
                self.descriptions[name] = self.descriptions[target]

    def _read_description(self, name: str, member: tarfile.TarInfo, source: IO[bytes]) -> None:
        if member.size > _MOST_DESCRIPTION_BYTES:
            self.faults.append((name, f"larger than {_MOST_DESCRIPTION_BYTES:,} bytes, too large for a description"))
            return
        source.seek(member.offset_data)
        self.descriptions[name] = source.read(member.size)


def list_tar(folder: Folder, shard: StoredFile, rows: ListedRows) -> None:
    """Add a shard's pictures, count its other members, and name what is damaged; a compressed shard is unpacked first.

    A picture's path is the shard's and its member's name. Its label is what the member `.cls` of its key holds,
    else `label` in `.json`, else `.txt`, else its folder within the shard. Raises CorpusError for a shard that cannot
    be opened.
    """
    members = _read_members(folder, shard, rows)
    described: dict[str, dict[str, bytes]] = {}
    for name, content in members.descriptions.items():
        key, suffix = _key(name)
        described.setdefault(key, {})[suffix] = content
    samples: dict[str, tuple[tuple[str, ...], str | None]] = {}
    for name, part in members.files.items():
        key, suffix = _key(name)
        if not is_picture(name):
            if suffix not in _DESCRIPTIONS:
                rows.pass_over(name)
            continue
        if key not in samples:
            samples[key] = _described(members, key, described.get(key, {}))
        labels, metadata = samples[key]
        rows.add(f"{shard.path}/{name}", Address(shard.path, part), shard, labels or folder_of(name), metadata)
    for name, reason in members.faults:
        rows.refuse(f"{shard.path}/{name}" if name else shard.path, reason, shard)


def _read_members(folder: Folder, shard: StoredFile, rows: ListedRows) -> Members:
    """Read the heads of all members of a shard."""
    members = Members()
    try:
        if is_compressed(shard.path):
            plain = unpack(folder, shard.path)
            with plain.file as source:
                _collect(source, plain.size_bytes, members)
            members.faults += [("", plain.fault)] if plain.fault else []
            rows.unpacked[shard.path] = plain.size_bytes
        else:
            with folder.open(shard.path, _AT_ONCE_BYTES) as source:
                _collect(source, shard.size_bytes, members)
    except OSError as error:
        raise CorpusError(f"tar {shard.path!r} {UNREADABLE}: {error.strerror or error}") from None
    members.follow_links()
    return members


def _collect(source: IO[bytes], size_bytes: int, members: Members) -> None:
    """Note every member of a tar, also those behind a damaged head, and what is damaged.

    Python's reader takes the first bad head for the end of the tar. It is told to search on instead; what lies between
    two members must be zeros.
    """
    end = 0
    for member, following in _heads(source, size_bytes):
        if member.offset > end:
            members.faults += _between(source, end, member.offset)
        if not member.isdir() and member.type not in _NO_MEMBERS:
            members.add(member, size_bytes, source)
        end = following
    if end == 0:
        members.faults.append(("", "it is no tar: no member was found in it"))
    elif end == size_bytes:
        members.faults.append(("", "it ends without its end marker, so that members may be missing"))
    elif end < size_bytes:
        members.faults += _between(source, end, size_bytes)


def _heads(source: IO[bytes], size_bytes: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Give each member with the position behind it; where a head cannot be read, the search goes on a block further."""
    position = 0
    while position < size_bytes:
        source.seek(position)
        position += _BLOCK
        try:
            tar = tarfile.TarFile(fileobj=source, ignore_zeros=True)
            position = tar.offset + _BLOCK
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all: a gigabyte for a million
                position = tar.offset + _BLOCK
                if tar.offset <= member.offset:  # its size is negative
                    position = member.offset + _BLOCK
                    break
                yield member, tar.offset
                if tar.offset > size_bytes:
                    return
            else:
                return
        except _DAMAGED:
            continue


def _between(source: IO[bytes], start: int, stop: int) -> list[tuple[str, str]]:
    """Return the fault of a tar that has other bytes than zeros and heads for all members between two members."""
    position = start
    while position < stop:
        source.seek(position)
        block = source.read(min(_BLOCK, stop - position))
        if block.count(0) == len(block):
            position += _BLOCK
            continue
        try:
            head = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError:
            head = None
        if head is None or head.type != tarfile.XGLTYPE:
            if position > start:
                return [("", f"bytes that are no member lie behind its end marker, at byte {position:,}")]
            return [("", f"the head of a member at byte {position:,} is damaged: what it named is lost")]
        position += _BLOCK + -(-head.size // _BLOCK) * _BLOCK
    return []


def _key(name: str) -> tuple[str, str]:
    """Return the key of a member's sample and what follows it: all behind the first dot of its name, in lower case."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _described(members: Members, key: str, descriptions: dict[str, bytes]) -> tuple[tuple[str, ...], str | None]:
    """Return label and metadata of a sample from the members that describe it."""
    texts = {suffix: content.decode(errors="replace").strip() for suffix, content in descriptions.items()}
    described: Any = {}
    if "json" in texts:
        try:
            described = read_json(texts["json"])
        except ValueError as error:
            members.faults.append((f"{key}.json", f"it is no JSON, and says nothing of its picture: {error}"))
    values = described if isinstance(described, dict) else {"json": described}
    labels = [texts.get("cls"), values.pop("label", None), texts.get("txt")]
    found = next((said for value in labels if (said := as_labels(value))), ())
    if "txt" in texts and found != (texts["txt"],):
        values.setdefault("txt", texts["txt"])
    return found, as_metadata(values)
