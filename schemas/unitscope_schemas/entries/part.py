"""A file of an atlas, as manifests and receipts name it."""

from unitscope_schemas.entries.entry import Entry
from unitscope_schemas.layout import Digest, PartPath


class Part(Entry):
    """A file of the atlas with what it must hold."""

    path: PartPath
    rows: int
    size_bytes: int
    sha256: Digest
