"""A file of an atlas, as manifests and receipts name it, and what tables name within one."""

from typing import NamedTuple

from unitscope_schemas.entries.entry import Entry
from unitscope_schemas.layout import Digest, PartPath


class Part(Entry):
    """A file of the atlas with what it must hold."""

    path: PartPath
    rows: int
    size_bytes: int
    sha256: Digest


class UnitFooter(NamedTuple):
    """Where in a ranked part the footer lies of one unit's rows alone, as bytes of the file.

    It ends as a Parquet file does: with its length and the magic number. With its digest a reader can trust it, and by
    the checksums of the pages that it names every byte that it reads.
    """

    start: int
    size_bytes: int
    sha256: str
