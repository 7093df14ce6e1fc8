"""Segments: the images of an atlas in sets that are ranked, embedded and indexed once, and never written again.

A version is a list of segments. Adding pictures makes a new one; those that are there stay as they are, but for the
place of their images among all, which `Segment.numbers` holds. Paths, labels and times lie beside: where they change,
the tables of images are written anew, and no ranks.
"""

from collections.abc import Iterator

from unitscope_schemas import layout
from unitscope_schemas.entries.entry import Entry
from unitscope_schemas.entries.part import Part
from unitscope_schemas.geometry import Box
from unitscope_schemas.layout import LayerName, ShortDigest

EXACT = "Flat"
"""FAISS's name for no index: vectors are searched one by one."""


class Embedding(Entry):
    """What is embedded of each image: a layer's output, pooled over some regions of the input."""

    layer: LayerName
    width: int
    """Count of the numbers of a vector."""
    regions: list[Box]
    """Boxes of the regions in input pixels."""


class PatchIndex(Entry):
    """The vectors of a segment's patches and the FAISS index over them, and how to ask it for ten images; more images
    take as much more."""

    vectors: Part
    index: Part | None
    factory: str
    exact: bool
    recall_at_10: float
    """Share of the ten best other images that are found, measured at build time against exact search over the full
    vectors, for 1,000 of them."""
    probes: int
    """Count of lists of the index that are searched for ten images; 0 where search is exact."""
    short_list: int
    """Count of the index's candidates that are scored again with the full vectors."""

    @classmethod
    def none(cls, vectors: Part) -> "PatchIndex":
        """Return the entry of vectors without an index: they are searched exactly, one by one."""
        return cls(vectors=vectors, index=None, factory=EXACT, exact=True, recall_at_10=1.0, probes=0, short_list=0)


class RankedLayer(Entry):
    """A layer's units over the images of one segment."""

    units: Part
    """Table of the units' statistics over the segment, with the schema `tables.UNITS`."""
    ranked: list[Part]
    """Ranked peaks of each block of BLOCK_UNITS units, with the schema `tables.RANKED`; images are rows of the
    segment."""


class ImageTables(Entry):
    """What paths, labels, times and sizes the images of a segment have, by row."""

    images: Part
    """Table of the images, with the schema `tables.SEGMENT_IMAGES`."""
    lookup: Part | None
    """Arrow file of them for answers, with the schema `tables.LOOKUP_IMAGES`; None in format version 2: answers make it
    anew when they open the atlas."""
    files: Part | None
    """Arrow file of their paths in order, with the schema `tables.LOOKUP_FILES`; None as `lookup` is."""

    def roles(self, segment: str, version: str) -> Iterator[tuple[Part, str]]:
        """Yield every part with the path that its role gives it; `version`: the one whose tables are read."""
        if self.lookup is None or self.files is None:
            yield self.images, layout.images_of(version)
            return
        # they stay as long as nothing changes in them
        written = self.images.path[-24:-8]
        yield self.images, layout.segment_images(segment, written)
        yield self.lookup, layout.lookup_images(segment, written)
        yield self.files, layout.lookup_files(segment, written)


class Segment(Entry):
    """Some images of an atlas, in order of their ids: what is ranked, embedded and indexed of them."""

    name: ShortDigest
    image_count: int
    tables: ImageTables
    layers: dict[LayerName, RankedLayer]
    patches: PatchIndex
    numbers: Part | None = None
    """Table of the number of each row's image in the version, with the schema `tables.NUMBERS`; None where row n is
    image n, as in the only segment of a version."""

    def parts(self) -> Iterator[Part]:
        """Yield the parts that stay as they are in whatever version: all but numbers and tables of images."""
        for ranked in self.layers.values():
            yield from (ranked.units, *ranked.ranked)
        yield from filter(None, (self.patches.vectors, self.patches.index))

    def roles(self, embedded: str, version: str) -> Iterator[tuple[Part, str]]:
        """Yield every part with the path that its role gives it; `version`: that of the images' numbers."""
        yield from self.tables.roles(self.name, version)
        if self.numbers is not None:
            yield self.numbers, layout.numbers(self.name, version)
        for layer, ranked in self.layers.items():
            # of relabelled images of format version 2 they lie under another name
            yield ranked.units, layout.units(layer, ranked.units.path[-24:-8])
            yield from ((part, layout.ranked(layer, block, self.name)) for block, part in enumerate(ranked.ranked))
        yield self.patches.vectors, layout.vectors(embedded, self.name)
        if self.patches.index is not None:
            yield self.patches.index, layout.index(embedded, self.name)
