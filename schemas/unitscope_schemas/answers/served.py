"""Answers about what a server holds: atlases, layers, images, versions, uploads, problems; rows are data classes."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, JsonValue

from unitscope_schemas.answers.statements import Statement
from unitscope_schemas.geometry import Box, Size
from unitscope_schemas.units import LayerSpec


class Answer(BaseModel):
    """Base of all answers: models that are read and written as JSON."""

    model_config = ConfigDict(frozen=True)


class LayerPage(Answer):
    """A page of an atlas's recorded layers."""

    rows: "list[LayerRow]"
    next: str | None = None


@dataclass
class LayerRow:
    """A recorded layer: its grid, stride and receptive field."""

    name: str
    kind: str
    units: int
    grid: Size
    stride: Size | None
    receptive_field: Size | None
    """Unclipped height and width in input pixels; null where units see the whole input."""
    effective_field: Size
    live: int | None = None
    dead: int | None = None

    @classmethod
    def of(cls, spec: LayerSpec, live: int | None = None, dead: int | None = None) -> "LayerRow":
        """Return a layer as answers show it, with how many of its units are live and dead where that is known."""
        field = spec.receptive_field
        return cls(
            name=spec.name,
            kind=spec.kind,
            units=spec.units,
            grid=spec.grid,
            stride=field.stride,
            receptive_field=field.size,
            effective_field=field.effective,
            live=live,
            dead=dead,
        )


@dataclass
class ImageRow:
    """An image of the corpus: its sizes, label and metadata."""

    image: int
    image_id: str
    path: str
    other_paths: list[str]
    label: str | None
    labels: list[str]
    """All labels, `label` first: several where files with the same bytes, or rows of a list, give several."""
    size_bytes: int
    format: str
    mode: str
    size: Size
    seen_box: Box
    """Box of the picture that the network sees, after resize and crop."""
    duplicate_group: str | None
    metadata: dict[str, JsonValue]
    """Further columns that the corpus has about the image; of several files those of the first path."""
    statements: list[Statement]
    """What files or rows of lists say of the image, where they disagree."""
    notes: str | None = None
    """What was done to the picture besides decoding, such as that it is the first of several frames; null: nothing."""


class ImagePage(Answer):
    """A page of the corpus's images with the cursor to the next page."""

    rows: list[ImageRow]
    next: str | None


@dataclass
class SkippedRow:
    """A file of the corpus that is no usable image, with the reason."""

    path: str
    size_bytes: int
    reason: str


class SkippedPage(Answer):
    """A page of skipped files with the cursor to the next page."""

    rows: list[SkippedRow]
    next: str | None


@dataclass
class AtlasRow:
    """An atlas in one row: its model, version and sizes."""

    name: str
    version: str
    model: str
    images: int
    skipped: int
    labels: int
    layers: int
    units: int
    created: str
    stale_images: int = 0
    """Number of removed images, shown nowhere, that ranks, percentiles and statistics count until the atlas is
    compacted."""
    kept: int | None = None
    """Number of first ranks of each unit that the atlas stores, null if all."""
    ignored: int = 0
    """Number of other files of the corpus, which are no pictures by their names and were not read."""
    hidden_corpora: int = 0
    """Number of corpora whose pictures are not shown: whoever serves the atlas has not allowed their folders."""


class AtlasPage(Answer):
    """A page of the atlases that a server serves."""

    rows: list[AtlasRow]
    next: str | None = None


@dataclass
class VersionRow:
    """A sealed version of an atlas."""

    version: str
    present: bool
    created: str
    images: int
    removed: int
    """Number of images that were taken out by hand."""
    stale_images: int
    size_bytes: int
    """Bytes of all parts that the version names, shared with other versions or not."""
    own_bytes: int
    """Bytes of the parts that no other version names."""


class Version(Answer):
    """The versions of a server: its package, its API and its stored format."""

    version: str
    api: str
    format_version: int


class Health(Answer):
    """The state of a server's process."""

    status: str


class Upload(Answer):
    """A picture from outside that the server keeps for a while in memory."""

    id: str
    image_id: str
    size: Size
    seen_box: Box
    expires: str
    in_corpus: bool


class Problem(Answer):
    """The problem details of an error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
