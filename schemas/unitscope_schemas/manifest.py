"""The manifest: the seal of an atlas version, naming every part that readers may open."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from unitscope_schemas import layout
from unitscope_schemas.entries.corpus import CorpusEntry, LeftImages
from unitscope_schemas.entries.document import damage, digest_of, unsealed_text
from unitscope_schemas.entries.entry import Entry
from unitscope_schemas.entries.model import ModelEntry, Preprocessing
from unitscope_schemas.entries.shared import SharedTables
from unitscope_schemas.errors import AtlasError, FormatError, NotFoundError, listing
from unitscope_schemas.geometry import Box
from unitscope_schemas.layout import Digest, LayerName, PartPath, ShortDigest
from unitscope_schemas.units import LayerSpec, unmeasured_words

FORMAT_VERSION = 2
"""Version of the stored format that this unitscope writes and reads."""
BLOCK_UNITS = 16
"""Count of units in one ranked file, and in one row group of the peaks that it is ranked from."""
EXACT = "Flat"
"""FAISS's name for no index: vectors are searched one by one."""
_MEND = "delete manifest.json and run the index command again: finished shards are kept"


class Part(Entry):
    """A file of the atlas with what it must hold."""

    path: PartPath
    rows: int
    size_bytes: int
    sha256: Digest


class Receipt(Entry):
    """A receipt names what one finished shard wrote. It is written last, so a shard with a receipt is complete.

    The manifest of a bounded atlas names no peaks: they are deleted once ranks and statistics are made of them.
    """

    shard: ShortDigest
    atlas_key: Digest
    files: Part
    scanned: Part
    skipped: Part
    peaks: dict[LayerName, Part]
    embeddings: Part
    forward_count: int
    forward: str
    """Description of how the shard's forwards ran: device, precision, what was fused."""
    seconds: float
    libraries: dict[str, str] = Field(default={})
    """Versions of the libraries that decoded, resized and ran; of old shards not known."""
    code: Digest | None = None
    """Digest of unitscope's own code that recorded the shard; of old shards not known."""

    def parts(self) -> list[Part]:
        """Return every file that the shard wrote."""
        return [part for part, _ in self.roles()]

    def roles(self) -> Iterator[tuple[Part, str]]:
        """Yield every file that the shard wrote with the path that its role gives it."""
        yield self.files, layout.files(self.shard)
        yield self.scanned, layout.scanned(self.shard)
        yield self.skipped, layout.skipped(self.shard)
        yield from ((part, layout.peaks(layer, self.shard)) for layer, part in self.peaks.items())
        # the layer that a shard embeds is told by the path alone, and by the manifest
        yield self.embeddings, layout.embeddings(self.embedded, self.shard)

    @property
    def embedded(self) -> str:
        """The layer whose embeddings the shard wrote."""
        return self.embeddings.path.split("/")[1] if self.embeddings.path.count("/") == 2 else ""

    def without_peaks(self) -> "Receipt":
        """Return what is left of the receipt in a bounded atlas."""
        return self.model_copy(update={"peaks": {}})


class MeasuredLayers(Entry):
    """The recorded layers with their receptive fields, stored for runs that resume."""

    atlas_key: Digest
    layers: list[LayerSpec]
    batch_checked: bool = False
    """Whether it was tried if values depend on a picture's batch or on chance."""
    batch_dependence: str | None = None
    """How they do, in words; None if they do not."""
    layer_notes: tuple[str, ...] = ()
    """What was left out of the default layers, and why."""


class LayerEntry(Entry):
    """A recorded layer with the parts that hold its statistics and ranks."""

    spec: LayerSpec
    units: Part
    """Table of the units' statistics, with the schema `tables.UNITS`."""
    ranked: list[Part]
    """Ranked peaks of each block of BLOCK_UNITS units, with the schema `tables.RANKED`."""
    fields: Part | None = None
    """Table of the units' effective boxes, with the schema `tables.UNIT_FIELDS`; None in an atlas whose units all have
    that of their layer."""
    field_exemplars: int = 0
    """Count of each unit's exemplars that its effective box was measured on, at most; 0 where it is the layer's."""


class PatchIndex(Entry):
    """The FAISS index over pooled embeddings, and how to ask it for ten images; more images take as much more."""

    layer: LayerName
    width: int
    regions: list[Box]
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
    def none(cls, layer: str, width: int, regions: list[Box], vectors: Part) -> "PatchIndex":
        """Return the entry of vectors without an index: they are searched exactly, one by one."""
        return cls(
            layer=layer,
            width=width,
            regions=regions,
            vectors=vectors,
            index=None,
            factory=EXACT,
            exact=True,
            recall_at_10=1.0,
            probes=0,
            short_list=0,
        )


class Lookup(Entry):
    """The files that answers look things up in; rebuildable from the images table and the ranked tables."""

    database: Part
    """DuckDB file of labels and paths."""
    images: Part
    """Arrow file of the images by their numbers."""
    ranks: Part | None = None
    """DuckDB file of the first ranks; None in atlases made before, where `database` holds them."""


class Removed(Entry):
    """The images that were taken out by hand: no answer shows them, and no index run takes them in again."""

    table: Part
    stale: int
    """Count of those that this version's images, ranks, statistics and vectors still hold: its tombstones."""
    built: ShortDigest
    """Name of the version whose tables this one reads."""


class Manifest(Entry):
    """The manifest says everything that readers need to know; an atlas version is what its manifest names."""

    format_version: int
    unitscope_version: str
    created: str
    atlas_key: Digest
    version: ShortDigest
    model: ModelEntry
    preprocessing: Preprocessing
    precision: Literal["fp32", "bf16"]
    batch_size: int
    corpus: CorpusEntry
    layers: list[LayerEntry]
    images: Part
    skipped: Part
    lookup: Lookup = Field(alias="hot")
    """Files that answers look things up in, stored under the name `hot`."""
    patches: PatchIndex
    shards: list[Receipt]
    forward_count: int
    """Count of forwards that this version's run needed: new images only."""
    config: dict[str, Any]
    """Configuration of the run that sealed this version."""
    removed: Removed | None = None
    shared: SharedTables | None = None
    """Whose tables this version reads, where its images are those of another; None: its own."""
    batch_dependence: str | None = None
    """How recorded values depend on a picture's batch or on chance, in words, where a person allowed it; None: they do
    not, or the version was sealed before this was tried."""
    layer_notes: list[str] = Field(default=[])
    """What was left out of the default layers, because it cannot be recorded."""
    picture_rules: list[str] = Field(default=[])
    """How pictures' values are read: frames, wide values, transparency, colours; empty in atlases made before."""
    keep: int | None = None
    """Count of first ranks of each unit that a bounded atlas holds, without peaks; None: all, and peaks."""
    left: LeftImages | None = None
    """Images that left with the run that sealed this version; None where none did."""
    digest: Digest | None = Field(default=None, exclude=True)
    """SHA-256 of the manifest's text, which names every part by its own: who has it can tell this version from any
    other. None until the version is sealed."""

    @property
    def remarks(self) -> list[str]:
        """Sentences that a person should know about the recorded values: of the weights, of batches, of fields."""
        batches = [f"values depend on a picture's batch: {self.batch_dependence}"] if self.batch_dependence else []
        return [*self.model.notes, *batches, *unmeasured_words(entry.spec for entry in self.layers)]

    @property
    def kept(self) -> int | None:
        """The count of first ranks that each unit has, None if all are there, as in a bounded atlas of few images."""
        return self.keep if self.keep is not None and self.keep < self.images.rows else None

    @property
    def built(self) -> str:
        """The name of the version whose tables this one reads: another one as long as there are tombstones."""
        return self.removed.built if self.removed else self.version

    @property
    def libraries(self) -> dict[str, list[str]]:
        """The versions of each library that recorded this version's values: several where runs differed."""
        pairs = {pair for receipt in self.shards for pair in receipt.libraries.items()}
        return {name: sorted(version for other, version in pairs if other == name) for name in sorted(dict(pairs))}

    @property
    def stale_count(self) -> int:
        """The count of removed images that ranks, percentiles and statistics of this version still count."""
        return self.removed.stale if self.removed else 0

    @property
    def compared_as(self) -> str:
        """The name of the version whose co-activation is this one's: of the same images, without tombstones."""
        return self.shared.ranks if self.shared and not self.stale_count else self.version

    def parts(self) -> Iterator[Part]:
        """List every file that this version needs, receipts left out."""
        yield from (part for part, _ in self._roles())

    def _roles(self) -> Iterator[tuple[Part, str]]:
        """Yield every part with the path that its role gives it."""
        built, embedded = self.built, self.patches.layer
        ranks, units = (self.shared.ranks, self.shared.units) if self.shared else (built, built)
        yield self.images, layout.images_of(built)
        yield self.skipped, layout.skipped_of(built)
        yield self.lookup.database, layout.lookup(built)
        yield self.lookup.images, layout.lookup_images(built)
        if self.lookup.ranks is not None:
            yield self.lookup.ranks, layout.lookup_ranks(ranks)
        yield self.patches.vectors, layout.vectors(embedded, ranks)
        if self.patches.index is not None:
            yield self.patches.index, layout.index(embedded, ranks)
        if self.removed is not None:
            yield self.removed.table, layout.removed(self.removed.table.path[-24:-8])
        for layer in self.layers:
            name = layer.spec.name
            yield layer.units, layout.units(name, units)
            yield from ((part, layout.ranked(name, block, ranks)) for block, part in enumerate(layer.ranked))
            if layer.fields is not None:  # those of an earlier version stay where its exemplars are the same
                yield layer.fields, layout.unit_fields(name, layer.field_exemplars, layer.fields.path[-24:-8])
        for receipt in self.shards:
            yield from receipt.roles()

    @model_validator(mode="after")
    def _holds_parts_in_their_roles(self) -> Self:
        """Refuse a manifest one of whose parts is another's, or of another size than its role says."""
        for part, path in self._roles():
            if part.path != path:
                raise ValueError(f"{part.path} stands where {path} belongs")
        names = [layer.spec.name for layer in self.layers]
        if len(set(names)) < len(names) or self.patches.layer not in names:
            raise ValueError("a layer is named twice, or the embedded one is not recorded")
        for layer in self.layers:
            units, blocks = layer.spec.units, -(-layer.spec.units // BLOCK_UNITS)
            if layer.units.rows != units or len(layer.ranked) != blocks:
                raise ValueError(f"layer {layer.spec.name} has {units} units but tables of others")
        if self.corpus.image_count != self.images.rows - self.stale_count:
            raise ValueError(f"corpus.image_count is {self.corpus.image_count}, the table has {self.images.rows} rows")
        return self

    def layer(self, name: str) -> LayerEntry | None:
        """Return a recorded layer by its name, None if there is none."""
        return next((entry for entry in self.layers if entry.spec.name == name), None)

    def recorded(self, name: str, where: str = "this atlas") -> LayerEntry:
        """Return a recorded layer; raises NotFoundError that names those there are."""
        entry = self.layer(name)
        if entry is None:
            known = listing((entry.spec.name for entry in self.layers), most=40)
            raise NotFoundError(f"layer {name!r} is not in {where}; it has {known}")
        return entry


def parse_manifest(text: str, atlas: str) -> Manifest:
    """Read a manifest; raises FormatError for another format version and AtlasError for a damaged one."""
    try:
        content = json.loads(text)
        format_version, writer = content.get("format_version"), content.get("unitscope_version")
    except (ValueError, AttributeError):
        raise AtlasError(f"manifest of atlas {atlas} is damaged: not a JSON object; {_MEND}") from None
    if format_version != FORMAT_VERSION:
        old = f"the unitscope that wrote it ({writer or 'it does not say which'})"
        if isinstance(format_version, int) and format_version > FORMAT_VERSION:
            advice = f"it is newer: use {old} or a later one"
        else:
            advice = f"no migration leads from there: use {old}, or index again into a new directory"
        raise FormatError(
            f"atlas {atlas} has format version {format_version}, this unitscope reads {FORMAT_VERSION}; {advice}"
        )
    try:
        plain = unsealed_text(text)
        if plain == text and "digest" in content:
            raise ValueError("its digest is not at its end")
    except ValueError as error:
        raise AtlasError(f"manifest of atlas {atlas} is damaged: {error}; {_MEND}") from None
    try:
        return Manifest.model_validate_json(plain).model_copy(update={"digest": digest_of(plain)})
    except ValidationError as error:
        raise AtlasError(f"manifest of atlas {atlas} is damaged: {damage(error)}; {_MEND}") from None


def atlas_key(
    model: ModelEntry, preprocessing: Preprocessing, layers: list[str], precision: str, batch_size: int
) -> str:
    """Return the digest of all that decides the recorded values: another key is another atlas.

    The batch size belongs to it because kernels round differently at different batch sizes.
    """
    content = {
        "format": FORMAT_VERSION,
        "weights": model.weights_digest,
        "preprocessing": preprocessing.digested,
        "layers": layers,
        "precision": precision,
        "batch_size": batch_size,
    }
    if model.code_digests:
        content["code"] = list(model.code_digests)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
