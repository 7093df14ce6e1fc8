"""Tables that versions share: those that do not change where pictures are only touched, renamed or labelled anew."""

from unitscope_schemas.entries.entry import Entry
from unitscope_schemas.layout import ShortDigest


class SharedTables(Entry):
    """The names of the versions that wrote what this one reads too."""

    ranks: ShortDigest
    """The one of the same images that wrote ranks, first ranks, vectors and their index."""
    units: ShortDigest
    """The one of the same images with the same labels that wrote the statistics."""
