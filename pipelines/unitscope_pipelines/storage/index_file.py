"""What can be checked of a FAISS index before FAISS reads it and trusts it: an atlas may be someone else's.

An index that passes may still hold lists that FAISS stumbles over. It cannot name another file, be of another kind than
an index run writes, or be of other vectors.
"""

import mmap
import re
import struct
from pathlib import Path

from unitscope_schemas.entries.segment import PatchIndex
from unitscope_schemas.errors import AtlasError

_HEAD = struct.Struct("<4siq")
"""Kind in four letters, width of vectors, and their count."""
_KINDS = (b"IxPT", b"IwSq", b"IwFl", b"Iwrq", b"Iwrr", b"Ivrq")
"""Kinds that an index has which a run wrote: a projection before lists, or lists of 8-bit numbers, vectors or bits."""
_ELSEWHERE = re.compile(rb"ilod.{3}\0{5}.{3}\0{5}", re.DOTALL)
"""Beginning of lists that lie in another file, whose name follows: two counts below 2²⁴ tell it from chance."""


def check_index_file(file: Path, patches: PatchIndex, wanted_width: int) -> None:
    """Raise AtlasError for a file that is no index over the vectors of an atlas, or that names another file."""
    assert patches.index is not None
    named = f"part {patches.index.path} is no index over this atlas's vectors"
    with file.open("rb") as source:
        head = source.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise AtlasError(f"{named}: it is too short")
        kind, width, count = _HEAD.unpack(head)
        if kind not in _KINDS:
            raise AtlasError(f"{named}: it is of the kind {kind!r}, which no index run writes")
        if (width, count) != (wanted_width, patches.vectors.rows):
            raise AtlasError(f"{named}: it holds {count} of width {width}")
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
            place = content.find(b"ilod")
            while place >= 0:
                if _ELSEWHERE.match(content, place):
                    raise AtlasError(f"{named}: its lists lie in another file")
                place = content.find(b"ilod", place + 1)
