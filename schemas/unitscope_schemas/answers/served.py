"""What is served, as it travels: atlases, layers, images, versions, uploads, problems; rows are plain data classes."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from unitscope_schemas.geometry import Box, Size


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class LayerPage(Answer):
    rows: "list[LayerRow]"
    next: str | None = None


@dataclass
class LayerRow:
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


@dataclass
class ImageRow:
    image: int
    image_id: str
    path: str
    other_paths: list[str]
    label: str | None
    size_bytes: int
    format: str
    mode: str
    size: Size
    seen_box: Box
    """The part of the picture that the network sees, after resize and crop."""
    duplicate_group: str | None
    metadata: dict[str, bool | int | float | str]
    """What else the corpus says of it."""


class ImagePage(Answer):
    rows: list[ImageRow]
    next: str | None


@dataclass
class SkippedRow:
    path: str
    size_bytes: int
    reason: str


class SkippedPage(Answer):
    rows: list[SkippedRow]
    next: str | None


@dataclass
class AtlasRow:
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
    """Removed images, shown nowhere, that ranks, percentiles and statistics count until the atlas is compacted."""
    kept: int | None = None
    """First ranks of each unit that the atlas keeps, null if all."""


class AtlasPage(Answer):
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
    """Images that were taken out by hand."""
    stale_images: int
    size_bytes: int
    """Of all parts that it names, shared with other versions or not."""
    own_bytes: int
    """Of the parts that no other version names."""


class Version(Answer):
    """What this server is."""

    version: str
    api: str
    format_version: int


class Health(Answer):
    status: str


class Upload(Answer):
    """A picture from outside, kept for a while in memory."""

    id: str
    image_id: str
    size: Size
    seen_box: Box
    expires: str
    in_corpus: bool


class Problem(Answer):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
