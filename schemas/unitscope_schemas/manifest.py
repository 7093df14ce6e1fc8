"""The manifest: the seal of an atlas version, naming every part that readers may open."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from unitscope_schemas import layout
from unitscope_schemas.entries.corpus import CorpusEntry, LeftImages
from unitscope_schemas.entries.document import damage, digest_of, unsealed_text
from unitscope_schemas.entries.entry import Entry
from unitscope_schemas.entries.format_2 import renewed
from unitscope_schemas.entries.model import Device, ModelEntry, Precision, Preprocessing
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import Embedding, Segment
from unitscope_schemas.errors import AtlasError, FormatError, NotFoundError, listing
from unitscope_schemas.layout import Digest, LayerName, ShortDigest
from unitscope_schemas.units import LayerSpec, unmeasured_words

FORMAT_VERSION = 3
"""Version of the stored format that this unitscope writes; it reads the one before too."""
_RECORDED_FORMAT = 2
"""Version of the format of what scans record, which is a part of the atlas key: later ones cut it otherwise alone."""
BLOCK_UNITS = 16
"""Count of units in one ranked file, and in one row group of the peaks that it is ranked from."""
_MEND = "delete manifest.json and run the index command again: finished shards are kept"


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
    """A recorded layer with the parts that hold the statistics of its units."""

    spec: LayerSpec
    units: Part
    """Table of the units' statistics over all images, with the schema `tables.UNITS`."""
    fields: Part | None = None
    """Table of the units' effective boxes, with the schema `tables.UNIT_FIELDS`; None in an atlas whose units all have
    that of their layer."""
    field_exemplars: int = 0
    """Count of each unit's exemplars that its effective box was measured on, at most; 0 where it is the layer's."""


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
    precision: Precision
    device: Device = "cpu"
    """Kind of device that recorded the values: others round otherwise, so that one atlas has those of one."""
    batch_size: int
    corpus: CorpusEntry
    layers: list[LayerEntry]
    skipped: Part
    first_ranks: Part
    """DuckDB file of every unit's first ranks; rebuildable from the ranked tables."""
    embedding: Embedding
    segments: list[Segment]
    """What is ranked, embedded and indexed, the oldest first."""
    groups: Part | None
    """Table of the groups of near duplicates, with the schema `tables.GROUPS`; None in atlases of format version 2,
    whose images tables tell them."""
    shards: list[Receipt]
    forward_count: int
    """Count of forwards that this version's run needed: new images only."""
    config: dict[str, Any]
    """Configuration of the run that sealed this version."""
    removed: Removed | None = None
    batch_dependence: str | None = None
    """How recorded values depend on a picture's batch or on chance, in words, where a person allowed it; None: they do
    not, or the version was sealed before this was tried."""
    layer_notes: list[str] = Field(default=[])
    """What was left out of the default layers, because it cannot be recorded."""
    picture_rules: list[str] = Field(default=[])
    """How pictures' values are read: frames, wide values, transparency, colours; empty in atlases made before."""
    keep: int | None = None
    """Count of first ranks of each unit that a bounded atlas holds, without peaks; None: all, and peaks."""
    unread: list[Part] = Field(default=[])
    """Parts of an atlas of format version 2 that the unitscope which wrote it needs, and this one does not."""
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
        return self.keep if self.keep is not None and self.keep < self.stored_count else None

    @property
    def stored_count(self) -> int:
        """The count of the images that the tables hold, tombstones too."""
        return sum(segment.image_count for segment in self.segments)

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
        if self.stale_count:
            return self.version
        names = [segment.name for segment in self.segments]
        return names[0] if len(names) == 1 else hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]

    def image_parts(self) -> Iterator[Part]:
        """Yield the tables that tell the images of this version."""
        for segment in self.segments:
            yield from filter(None, (segment.tables.images, segment.numbers))
        yield from filter(None, (self.groups,))

    def parts(self) -> Iterator[Part]:
        """List every file that this version needs once, receipts left out."""
        yield from {part.path: part for part, _ in self._roles()}.values()

    def _roles(self) -> Iterator[tuple[Part, str]]:
        """Yield every part with the path that its role gives it."""
        built = self.built
        yield self.skipped, layout.skipped_of(built)
        # first ranks and statistics stay where the images are the same; the oldest atlases hold them with their paths
        of_2, ranks = layout.lookup_of_2(built), self.first_ranks.path
        yield self.first_ranks, ranks if ranks == of_2[0] else layout.first_ranks(ranks[-23:-7])
        if self.groups is not None:
            yield self.groups, layout.groups(built)
        yield from ((part, part.path if part.path in of_2 else of_2[0]) for part in self.unread)
        if self.removed is not None:
            yield self.removed.table, layout.removed(self.removed.table.path[-24:-8])
        for layer in self.layers:
            name = layer.spec.name
            yield layer.units, layout.units(name, layer.units.path[-24:-8])
            if layer.fields is not None:  # those of an earlier version stay where its exemplars are the same
                yield layer.fields, layout.unit_fields(name, layer.field_exemplars, layer.fields.path[-24:-8])
        for segment in self.segments:
            yield from segment.roles(self.embedding.layer, built)
        for receipt in self.shards:
            yield from receipt.roles()

    @model_validator(mode="after")
    def _holds_parts_in_their_roles(self) -> Self:
        """Refuse a manifest one of whose parts is another's, or of another size than its role says."""
        known: dict[str, Part] = {}
        for part, path in self._roles():
            if part.path != path:
                raise ValueError(f"{part.path} stands where {path} belongs")
            if known.setdefault(path, part) != part:
                raise ValueError(f"{path} is said to be two different parts")
        names = [layer.spec.name for layer in self.layers]
        if len(set(names)) < len(names) or self.embedding.layer not in names:
            raise ValueError("a layer is named twice, or the embedded one is not recorded")
        for layer in self.layers:
            if layer.units.rows != layer.spec.units:
                raise ValueError(f"layer {layer.spec.name} has {layer.spec.units} units but tables of others")
        self._check_segments()
        if self.corpus.image_count != self.stored_count - self.stale_count:
            raise ValueError(f"corpus.image_count is {self.corpus.image_count}, the tables have {self.stored_count}")
        return self

    def _check_segments(self) -> None:
        """Raise ValueError unless the segments have the layers of the version, and together as many images."""
        names = {segment.name for segment in self.segments}
        whole = len(self.segments) == 1 and self.segments[0].numbers is None
        if len(names) < len(self.segments) or not all(segment.image_count > 0 for segment in self.segments):
            raise ValueError("a segment is named twice, or has no images")
        if not names:
            raise ValueError("there is no segment")
        for segment in self.segments:
            name, regions = segment.name, len(self.embedding.regions)
            if not whole and (segment.numbers is None or segment.numbers.rows != segment.image_count):
                raise ValueError(f"segment {name} does not say which images it has")
            if segment.tables.images.rows != segment.image_count:
                raise ValueError(f"segment {name} has {segment.image_count} images, but tables of others")
            if segment.patches.vectors.rows != segment.image_count * regions:
                raise ValueError(f"segment {name} has vectors of other images")
            if list(segment.layers) != [layer.spec.name for layer in self.layers]:
                raise ValueError(f"segment {name} has other layers than the version")
            for layer, ranked in zip(self.layers, segment.layers.values(), strict=True):
                units, blocks = layer.spec.units, -(-layer.spec.units // BLOCK_UNITS)
                if ranked.units.rows != units or len(ranked.ranked) != blocks:
                    raise ValueError(f"layer {layer.spec.name} of segment {name} has {units} units but other tables")

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
    if format_version not in (2, FORMAT_VERSION):
        old = f"the unitscope that wrote it ({writer or 'it does not say which'})"
        if isinstance(format_version, int) and format_version > FORMAT_VERSION:
            advice = f"it is newer: use {old} or a later one"
        else:
            advice = f"no migration leads from there: use {old}, or index again into a new directory"
        raise FormatError(
            f"atlas {atlas} has format version {format_version}, this unitscope reads 2 and {FORMAT_VERSION}; {advice}"
        )
    try:
        plain = unsealed_text(text)
        if plain == text and "digest" in content:
            raise ValueError("its digest is not at its end")
    except ValueError as error:
        raise AtlasError(f"manifest of atlas {atlas} is damaged: {error}; {_MEND}") from None
    try:
        read = plain if format_version == FORMAT_VERSION else json.dumps(renewed(json.loads(plain)))
        return Manifest.model_validate_json(read).model_copy(update={"digest": digest_of(plain)})
    except ValidationError as error:
        raise AtlasError(f"manifest of atlas {atlas} is damaged: {damage(error)}; {_MEND}") from None
    except (LookupError, TypeError, AttributeError) as error:
        raise AtlasError(f"manifest of atlas {atlas} is damaged: it lacks {error}; {_MEND}") from None


def atlas_key(
    model: ModelEntry, preprocessing: Preprocessing, layers: list[str], precision: str, batch_size: int, device: str
) -> str:
    """Return the digest of all that decides the recorded values: another key is another atlas.

    The batch size belongs to it because kernels round differently at different batch sizes, and the kind of device.
    """
    content = {
        "format": _RECORDED_FORMAT,
        "weights": model.weights_digest,
        "preprocessing": preprocessing.digested,
        "layers": layers,
        "precision": precision,
        "batch_size": batch_size,
    }
    if device != "cpu":  # keys of before say nothing of it
        content["device"] = device
    if model.code_digests:
        content["code"] = list(model.code_digests)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
