"""The Arrow schema of every table in an atlas; each column carries one sentence about itself."""

import pyarrow as pa

TOKEN_ROW = -1
"""Grid row of a class or register token, whose column is then the token's number."""

KNOT_SHARES: tuple[float, ...] = (
    *(0.0, 0.0001, 0.001, 0.005),
    *(step / 100 for step in range(1, 100)),
    *(0.995, 0.999, 0.9999, 1.0),
)
"""Shares of a unit's ranked images at which its quantile knots are stored (lower, nearest-rank definition)."""

UNREADABLE = "cannot be read"
"""Beginning of the reason of a skipped file that the system refused to read: the next run tries it again."""

HISTOGRAM_BINS = 64
"""Count of equal bins in a unit's histogram."""
FIRST_RANKS = 1_024
"""Count of the first ranks of a unit that make its first row group and stand in the lookup database too."""
TOP_LABEL_RANKS = 100
"""Count of the first ranks that a unit's top labels are counted over."""


def exemplar_count(image_count: int) -> int:
    """Return how many first images of a unit are compared with another's.

    It is 64, of small corpora a tenth of the images, but nine if there are so many.
    """
    return min(image_count, max(9, min(64, image_count // 10)))


def _column(name: str, kind: pa.DataType, about: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"about": about})


LEAST_ID_DIGITS = 6
"""Count of first digits of an image's id that may stand for it, where no other image begins so."""

_ID = _column("image_id", pa.string(), "SHA-256 of the image's bytes, hexadecimal")
_PATH = _column("path", pa.string(), "name of the picture below the corpus root: file, file/member or file/row")
_ADDRESS = _column("address", pa.string(), "where the picture's bytes are, as unitscope_schemas.addresses writes it")
_FILE_BYTES = _column("file_bytes", pa.int64(), "size of the file that is the picture or holds it, in bytes")
_SIZE = _column("size_bytes", pa.int64(), "size of the picture in bytes, 0 where it could not be read")
_MODIFIED = _column("modified_ns", pa.int64(), "modification time of that file in nanoseconds since 1970")
_LABEL = _column("label", pa.string(), "first label that the corpus gives, or folder; null if none", nullable=True)
_LABELS = _column("labels", pa.list_(pa.string()), "all labels that the corpus gives, `label` first")
_METADATA = _column("metadata", pa.string(), "what else the corpus says of the picture, a JSON object", nullable=True)
_GEOMETRY = [
    _column("format", pa.string(), "file format by content, for example JPEG"),
    _column("mode", pa.string(), "pixel mode before conversion, for example CMYK"),
    _column("height_px", pa.int32(), "height of the upright picture in pixels"),
    _column("width_px", pa.int32(), "width of the upright picture in pixels"),
    _column("resized_height_px", pa.int32(), "height after the resize, before the crop"),
    _column("resized_width_px", pa.int32(), "width after the resize, before the crop"),
    _column("crop_row", pa.int32(), "first row of the crop in the resized picture"),
    _column("crop_col", pa.int32(), "first column of the crop in the resized picture"),
]

_STATEMENTS = _column(
    "statements",
    pa.string(),
    "what each file or row says of the picture, a JSON list, where they disagree; null where they agree",
    nullable=True,
)
_NOTES = _column(
    "notes",
    pa.string(),
    "what was done to the picture besides decoding, such as that it is the first of several frames; null if nothing",
    nullable=True,
)

LISTED = pa.schema([_PATH, _LABEL, _LABELS, _METADATA, _STATEMENTS, _ADDRESS, _FILE_BYTES, _MODIFIED])
"""Table of one row per picture of a corpus, before any is read."""

FILE_KEY = ("path", "file_bytes", "modified_ns")
"""Columns that tell a picture in its present state: one that was read in this state is not read again."""

FILES = pa.schema([_PATH, _FILE_BYTES, _MODIFIED, _SIZE, _ID])
"""Table of one row per readable file of a shard."""

SCANNED = pa.schema(
    [
        _column("row", pa.int32(), "row of the image in the shard's peaks and embeddings"),
        _ID,
        *_GEOMETRY,
        _column("gradient_hash", pa.binary(32), "sign of horizontal brightness steps on a 16 × 16 thumbnail"),
        _column("tint", pa.binary(3), "mean red, green and blue"),
        _NOTES,
    ]
)
"""Table of one row per image whose forward ran in a shard."""

SKIPPED = pa.schema([_PATH, _FILE_BYTES, _MODIFIED, _SIZE, _column("reason", pa.string(), "why it is no usable image")])
"""Table of one row per file that is no usable image."""

IMAGES = pa.schema(
    [
        _column("image", pa.int32(), "number of the image: its position among all ids in ascending order"),
        _ID,
        _PATH,
        _column("other_paths", pa.list_(pa.string()), "further files with the same bytes"),
        _ADDRESS,
        _column("other_addresses", pa.list_(pa.string()), "where those are"),
        _LABEL,
        _METADATA,
        _SIZE,
        _MODIFIED,
        *_GEOMETRY,
        _NOTES,
        _column("duplicate_group", pa.string(), "smallest id among near duplicates, null if none", nullable=True),
        _column("shard", pa.string(), "shard that scanned the image"),
        _column("shard_row", pa.int32(), "row of the image in that shard's peaks and embeddings"),
        _LABELS,
        _STATEMENTS,
    ]
)
"""Table of one row per image of a sealed version, in order of its number; older atlases have no column behind
`shard_row`."""

NUMBERED = ("image", "duplicate_group")
"""Columns of IMAGES that follow from all images of a version: segments hold none of them."""
SEGMENT_IMAGES = pa.schema([field for field in IMAGES if field.name not in NUMBERED])
"""Table of one row per image of a segment, in order of ids."""

GROUPS = pa.schema(
    [
        _column("image", pa.int32(), "number of an image that has near duplicates"),
        _column("first", pa.int32(), "number of the first image of its group"),
        _column("duplicate_group", pa.string(), "id of that image"),
    ]
)
"""Table of one row per image of a version that has near duplicates, in order of its number."""


def with_labels(images: pa.Table) -> pa.Table:
    """Return rows of IMAGES with the columns that older atlases do not have: their only label, and no disagreement."""
    if "labels" not in images.column_names and "label" in images.column_names:
        labels = [[] if label is None else [label] for label in images["label"].to_pylist()]
        images = images.append_column(_LABELS, pa.array(labels, _LABELS.type))
        images = images.append_column(_STATEMENTS, pa.nulls(images.num_rows, pa.string()))
    return images


def completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table that was written before some columns of its schema were, with null in these."""
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


REMOVED = pa.schema(
    [
        _ID,
        _PATH,
        _column("removed", pa.string(), "when it was removed, ISO 8601 in UTC"),
    ]
)
"""Table of one row per image that was taken out by hand, in order of ids."""

_LOOKED_UP = {
    "path": _column("path", pa.large_string(), "name of the picture below the corpus root"),
    "address": _column("address", pa.large_string(), "where the picture's bytes are"),
    "metadata": _column("metadata", pa.large_string(), "what else the corpus says, a JSON object", nullable=True),
    "image_id": _column("image_id", pa.large_string(), "SHA-256 of the image's bytes, hexadecimal"),
    "labels": _column("labels", pa.large_list(pa.dictionary(pa.int32(), pa.large_string())), "all labels of the image"),
    "statements": _column("statements", pa.large_string(), "what files say that disagree, a JSON list", nullable=True),
}
LOOKUP_IMAGES = pa.schema([_LOOKED_UP.get(field.name, field) for field in SEGMENT_IMAGES if field.name != "label"])
"""Rows of SEGMENT_IMAGES as answers read them, in a memory-mapped Arrow file. Behind these columns stands one for each
name in the metadata."""

LOOKUP_FILES = pa.schema(
    [
        _column("path", pa.large_string(), "name of a file below the corpus root"),
        _column("row", pa.int32(), "row of its image in the segment"),
    ]
)
"""Table of one row per file of a segment's images, in order of paths, in a memory-mapped Arrow file."""

METADATA_PREFIX = "metadata."
"""Beginning of the names of the columns that metadata have in LOOKUP_IMAGES."""

_UNIT = _column("unit", pa.int32(), "channel of the layer")
_PEAK = [
    _column("activation", pa.float32(), "the unit's maximum over all locations of the image"),
    _column("row", pa.int16(), "grid row of the maximum, the first in row order; −1 for a token of its own kind"),
    _column("col", pa.int16(), "grid column of the maximum; the token's number where row is −1"),
]

PEAKS = pa.schema([_UNIT, _column("image", pa.int32(), "row of the image in its shard"), *_PEAK])
"""Table that a scan writes for one layer: every cell of units × images, sorted by unit, then image."""

RANKED = pa.schema(
    [
        _UNIT,
        _column("rank", pa.int32(), "0 for the highest activation; ties by ascending image"),
        _column("image", pa.int32(), "row of the image in its segment; where there is one, its number in the version"),
        *_PEAK,
    ]
)
"""Table that questions read: the finite peaks of a block of units in rank order, of a bounded atlas each unit's first.
A row group holds some consecutive ranks of one unit, the first one its first FIRST_RANKS."""

NUMBERS = pa.schema([_column("image", pa.int32(), "number of the image in the version's images table")])
"""Table of one row per image of a segment, in order of its rows, which is that of the numbers."""

GROUP_RANKS = 32_768
"""Ranks of a row group behind the first ones: each segment reads one or two for a deep page, a percentile, a label."""


def group_ends(count: int) -> list[int]:
    """Return the ranks between which the row groups of a unit with so many ranked images are written, 0 to `count`.

    Files of groups of four times as many are 0.4 % smaller. Those that others wrote may be grouped otherwise behind the
    first ranks: readers ask the files.
    """
    ends = (0, FIRST_RANKS, *range(GROUP_RANKS, count, GROUP_RANKS))
    return [*(end for end in ends if end < count), count]


_TOP_LABEL = pa.struct([("label", pa.string()), ("count", pa.int32()), ("share", pa.float64()), ("lift", pa.float64())])

UNITS = pa.schema(
    [
        _UNIT,
        _column("status", pa.string(), "live, rare, dead, negative-only or non-finite"),
        _column("image_count", pa.int64(), "images with a finite peak"),
        _column("positive_count", pa.int64(), "images whose peak is above zero"),
        _column("zero_count", pa.int64(), "images whose peak is exactly zero"),
        _column("nonfinite_count", pa.int64(), "images with a NaN or infinite peak; never ranked"),
        _column("minimum", pa.float32(), "lowest finite peak", nullable=True),
        _column("maximum", pa.float32(), "highest finite peak", nullable=True),
        _column("mean", pa.float64(), "mean of the finite peaks", nullable=True),
        _column("std", pa.float64(), "population standard deviation of the finite peaks", nullable=True),
        _column("knots", pa.list_(pa.float32()), "quantiles at KNOT_SHARES"),
        _column("histogram", pa.list_(pa.int64()), "counts in equal bins from minimum to maximum, last bin closed"),
        _column("top_labels", pa.list_(_TOP_LABEL), "labels of the first ranks, with lift over the corpus"),
        _column("nonfinite_images", pa.list_(pa.string()), "ids of the first hundred images with such a peak"),
    ]
)
"""Table of the statistics of a layer's units, one row per unit."""

FOOTER = "footer"
"""Column of a segment's table of units beside those of UNITS, where units have footers of their own."""
SEGMENT_UNITS = UNITS.append(
    _column(
        FOOTER,
        pa.struct([("start", pa.int64()), ("size_bytes", pa.int32()), ("sha256", pa.string())]),
        "where in the ranked part of the unit's block its own footer lies; null: it has none",
        nullable=True,
    )
)
"""Table of the statistics of a layer's units over the images of a segment, one row per unit."""
FOOTER_IMAGES = 65_536
"""Images of a segment from which its units have footers of their own, which make ranked parts half a percent larger."""

UNIT_FIELDS = pa.schema(
    [
        _UNIT,
        _column(
            "effective_height_px",
            pa.int32(),
            "height of the unit's effective box in pixels of the network's input; null: that of the layer's",
            nullable=True,
        ),
    ]
)
"""Table of the effective boxes of a layer's units, one row per unit; their widths are in the layer's proportions."""

COACTIVATION = pa.schema(
    [
        _UNIT,
        _column("correlation", pa.list_(pa.float32()), "rank correlation with each unit of the other layer"),
        _column("jaccard", pa.list_(pa.float32()), "exemplars shared with each of them, over those of both"),
    ]
)
"""Table of how alike a layer's units are to those of another, one row per unit; NaN where it cannot be told. Metadata
of the table say over how many images, and how many first ones are exemplars."""


def embeddings(width: int) -> pa.Schema:
    """Return the schema of one layer's region-pooled vectors, sorted by image row, then region."""
    return pa.schema(
        [
            _column("row", pa.int32(), "row of the image in its shard"),
            _column("region", pa.int16(), "number of the region"),
            *(_column(f"{side}_px", pa.int32(), f"{side} of the region's box in the original picture")
              for side in ("top", "left", "bottom", "right")),
            _column("vector", pa.list_(pa.float16(), width), "unit-length mean over the region"),
        ]
    )  # fmt: skip
