"""A DuckDB file of views over the Parquet of sealed atlases, without a copy of it, for dashboards and SQL.

Views find their parts by absolute paths, so the file belongs to the place where the atlases lie. Macros name no view:
DuckDB would look for it in the database that asks, not in the one that is attached.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from unitscope_pipelines.storage.filesystem import is_remote
from unitscope_pipelines.storage.parts import read_manifest, write_atomically
from unitscope_pipelines.storage.stores import AtlasAddress, store_of
from unitscope_schemas import tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.geometry import Location, ReceptiveField
from unitscope_schemas.manifest import BLOCK_UNITS, Manifest
from unitscope_schemas.units import LayerSpec

_TAKEN = ("main", "temp", "information_schema", "pg_catalog")
_SIDES = ("top", "left", "bottom", "right")

_OF_IMAGE = (
    *("image_id", "path", "label", "duplicate_group", "crop_row", "crop_col"),
    *("height_px", "width_px", "resized_height_px", "resized_width_px"),
)
_NO_UNIT = "'this atlas has no unit ' || layer || ':' || unit"
_NO_LAYER = "'this atlas has no layer ' || layer"
"""SQL text in place of a path, so that DuckDB's message about the missing file says it."""

_TOP_PATCHES = """
CREATE MACRO {schema}.top_patches(layer, unit, k) AS TABLE
WITH own AS (
    SELECT r.rank, r.image, r.activation, r.row, r.col,
        rank() OVER (ORDER BY r.activation DESC) - 1 AS above,
        (SELECT s.image_count FROM read_parquet({units_part}) AS s WHERE s.unit = unit) AS image_count
    FROM {ranked_of_unit} AS r WHERE r.unit = unit
), chosen AS (
    SELECT own.*, {of_image} FROM own JOIN {images} AS i USING (image)
    WHERE (SELECT s.status FROM read_parquet({units_part}) AS s WHERE s.unit = unit) <> 'dead'
    QUALIFY i.duplicate_group IS NULL OR row_number() OVER (PARTITION BY i.duplicate_group ORDER BY own.rank) = 1
    ORDER BY own.rank LIMIT k
), placed AS (
    SELECT *, {boxes}[layer]['rows'][if(row < 0, -1, row + 1)] AS across,
        {boxes}[layer]['cols'][if(row < 0, -1, col + 1)] AS along,
        if(row < 0, NULL, {own_height}) AS own_height, {boxes}[layer]['size'] AS size
    FROM chosen
), measured AS (
    SELECT *, if(row < 0, size[5], if(own_height IS NULL, size[3], least(own_height, size[1], size[5]))) AS tall,
        if(row < 0, size[6], if(own_height IS NULL, size[4],
            least((own_height * size[2] + size[1] - 1) // size[1], size[2], size[6]))) AS wide
    FROM placed
), framed AS (
    SELECT * REPLACE (
        across || [greatest(first_row, across[1]), 0, least(first_row + tall, across[3])] AS across,
        along || [0, greatest(first_col, along[2]), 0, least(first_col + wide, along[4])] AS along
    )
    FROM (
        SELECT *, greatest(0, least(across[9] - tall // 2, size[5] - tall)) AS first_row,
            greatest(0, least(along[9] - wide // 2, size[6] - wide)) AS first_col
        FROM measured
    )
)
SELECT rank, image_id, path, label, labels, activation, (image_count - above) / image_count AS percentile, row, col,
    {sides},
    duplicate_group
FROM framed ORDER BY rank
"""
_EXPLAIN = """
CREATE MACRO {schema}.explain(layer, picture, k) AS TABLE
WITH own AS (
    SELECT r.unit, r.activation, r.row, r.col, {of_image}
    FROM {ranked_of_layer} AS r JOIN {images} AS i USING (image)
    WHERE i.image_id = picture OR i.path = picture
), counted AS (
    SELECT r.unit, count(*) AS image_count, count(*) FILTER (WHERE r.activation > own.activation) AS above
    FROM {ranked_of_layer} AS r JOIN own USING (unit) GROUP BY r.unit
), placed AS (
    SELECT own.*, (counted.image_count - counted.above) / counted.image_count AS percentile,
        (own.activation::DOUBLE - s.mean) / if(s.std > 0, s.std, 1) AS deviation,
        {boxes}[layer]['rows'][if(row < 0, -1, row + 1)] AS across,
        {boxes}[layer]['cols'][if(row < 0, -1, col + 1)] AS along
    FROM own JOIN counted USING (unit) JOIN read_parquet({layer_units_part}) AS s USING (unit) WHERE s.status <> 'dead'
)
SELECT layer AS layer, unit AS channel, activation, percentile, row, col, {box_sides}
FROM placed ORDER BY percentile DESC, deviation DESC, channel LIMIT k
"""
_UNIT_HISTOGRAM = """
CREATE MACRO {schema}.unit_histogram(layer, unit) AS TABLE
SELECT bin, minimum + width * bin AS low, minimum + width * (bin + 1) AS high, histogram[bin + 1] AS image_count
FROM (
    SELECT s.minimum::DOUBLE AS minimum, (s.maximum::DOUBLE - s.minimum) / {bins} AS width, s.histogram,
        unnest(range(len(s.histogram))) AS bin
    FROM read_parquet({units_part}) AS s WHERE s.unit = unit
)
ORDER BY bin
"""
_UNIT_LABELS = """
CREATE MACRO {schema}.unit_labels(layer, unit) AS TABLE
SELECT found.label, found.count, found.share, found.lift
FROM (SELECT unnest(s.top_labels) AS found FROM read_parquet({units_part}) AS s WHERE s.unit = unit)
"""


def write_catalog(atlases: Sequence[AtlasAddress], target: Path) -> Part:
    """Write views over the sealed version of each atlas, in a schema of its name; the first without a schema too.

    Each has `images`, `skipped`, `layers`, `units`, `ranked` and the macros `top_patches(layer, unit, k)`,
    `unit_histogram(layer, unit)`, `unit_labels(layer, unit)` and `explain(layer, picture, k)`: the units of a layer
    that an image, by id or path, excites most; it reads all ranks of the layer.

    Raises NotFoundError for what is no atlas, UsageError for one whose tables still hold removed images, and for one in
    an object store.
    """
    manifests = {folder.resolve(): _manifest(folder) for folder in map(_folder, atlases)}
    names = [folder.name for folder in manifests]
    for name in names:
        if name.lower() in _TAKEN or sum(name.lower() == other.lower() for other in names) > 1:
            raise UsageError(f"{name!r} cannot name one atlas of a catalog; rename its directory")

    def write(file: Path) -> None:
        with duckdb.connect(os.fspath(file)) as database:
            for number, (folder, manifest) in enumerate(manifests.items()):
                database.execute(f"CREATE SCHEMA {_name(folder.name)}")
                for schema in [_name(folder.name), *(["main"] if number == 0 else [])]:
                    for statement in _statements(schema, folder, manifest):
                        database.execute(statement)

    return write_atomically(store_of(target.absolute().parent), target.name, write, rows=len(manifests))


def _folder(atlas: AtlasAddress) -> Path:
    if is_remote(str(atlas)):
        raise UsageError(
            f"{atlas} is in an object store, which the views of a catalog cannot read: DuckDB would need an extension "
            "that is downloaded; copy the atlas into a folder, or export its tables with unitscope export"
        )
    return Path(atlas)


def _manifest(folder: Path) -> Manifest:
    manifest = read_manifest(store_of(folder))
    if manifest is None:
        raise NotFoundError(f"{folder} is no atlas; write one with unitscope index")
    if manifest.stale_count:
        raise UsageError(
            f"the tables of {folder} still hold {manifest.stale_count} removed images; run unitscope compact"
        )
    return manifest


def _statements(schema: str, folder: Path, manifest: Manifest) -> list[str]:
    """Return the statements that make the views and macros of one atlas."""

    def file(part: Part) -> str:
        return _text(str(folder / part.path))

    units = {entry.spec.name: file(entry.units) for entry in manifest.layers}
    of_unit, of_layer = [], []
    for segment in manifest.segments:
        parts = {
            f"{layer}:{block}": file(part)
            for layer, own in segment.layers.items()
            for block, part in enumerate(own.ranked)
        }
        blocks = {layer: f"[{', '.join(map(file, own.ranked))}]" for layer, own in segment.layers.items()}
        numbers = None if segment.numbers is None else file(segment.numbers)
        of_unit.append((f"ifnull({_map(parts)}[layer || ':' || unit // {BLOCK_UNITS}], {_NO_UNIT})", numbers))
        of_layer.append((f"ifnull({_map(blocks)}[layer], [{_NO_LAYER}])", numbers))
    columns = f"COLUMNS(lambda name: name <> {_text(tables.FOOTER)})"
    each_units = [f"SELECT {_text(layer)} AS layer, {columns} FROM read_parquet({at})" for layer, at in units.items()]
    each_ranked = [f"SELECT {_text(layer)} AS layer, * FROM {_ranked(manifest, layer, file)}" for layer in units]
    layers = [
        f"({position}, {_text(spec.name)}, {_text(spec.kind)}, {spec.units}, {spec.grid.height}, {spec.grid.width})"
        for position, spec in enumerate(entry.spec for entry in manifest.layers)
    ]
    known = {
        "schema": schema,
        "ranked_of_unit": _merged(of_unit),
        "ranked_of_layer": _merged(of_layer),
        "layer_units_part": f"ifnull({_map(units)}[layer], {_NO_LAYER})",
        "units_part": f"ifnull({_map(units)}[layer], {_NO_UNIT})",
        "images": _images(manifest, file),
        "boxes": _map({entry.spec.name: _boxes(entry.spec) for entry in manifest.layers}),
        "own_height": _own_height(manifest, file),
        "sides": ", ".join([*_in_picture("box", 0), *_in_picture("effective_box", 9), *_as_measured("padding", 4)]),
        "box_sides": ", ".join(_in_picture("box", 0)),
        "of_image": ", ".join(
            [*(f"i.{name}" for name in _OF_IMAGE), _labels(folder / manifest.segments[0].tables.images.path)]
        ),
        "bins": tables.HISTOGRAM_BINS,
    }
    return [
        f"CREATE VIEW {schema}.images AS FROM {_images(manifest, file)}",
        f"CREATE VIEW {schema}.skipped AS FROM read_parquet({file(manifest.skipped)})",
        f"CREATE VIEW {schema}.layers AS FROM (VALUES {', '.join(layers)}) "
        "AS named(position, name, kind, units, grid_height, grid_width)",
        f"CREATE VIEW {schema}.units AS {' UNION ALL '.join(each_units)}",
        f"CREATE VIEW {schema}.ranked AS {' UNION ALL '.join(each_ranked)}",
        *(macro.format(**known) for macro in (_TOP_PATCHES, _EXPLAIN, _UNIT_HISTOGRAM, _UNIT_LABELS)),
    ]


def _images(manifest: Manifest, file: Callable[[Part], str]) -> str:
    """Write the images of all segments in one, in order of their numbers."""
    if manifest.groups is None:
        return f"read_parquet({file(manifest.segments[0].tables.images)})"
    stored = ", ".join(f"s.{name}" for name in tables.SEGMENT_IMAGES.names)
    pieces = []
    for segment in manifest.segments:
        rows = f"read_parquet({file(segment.tables.images)}, file_row_number = true) AS s"
        if segment.numbers is None:
            pieces.append(f"SELECT s.file_row_number::INTEGER AS image, {stored} FROM {rows}")
        else:
            numbers = f"read_parquet({file(segment.numbers)}, file_row_number = true) AS n"
            pieces.append(f"SELECT n.image, {stored} FROM {rows} JOIN {numbers} USING (file_row_number)")
    columns = ", ".join(f"{'g' if name == 'duplicate_group' else 'm'}.{name}" for name in tables.IMAGES.names)
    groups = f"LEFT JOIN read_parquet({file(manifest.groups)}) AS g ON g.image = m.image"
    return f"(SELECT {columns} FROM ({' UNION ALL '.join(pieces)}) AS m {groups} ORDER BY m.image)"


def _ranked(manifest: Manifest, layer: str, file: Callable[[Part], str]) -> str:
    """Write the ranked rows of one layer, of all segments."""
    pieces = []
    for segment in manifest.segments:
        paths = f"[{', '.join(map(file, segment.layers[layer].ranked))}]"
        pieces.append((paths, None if segment.numbers is None else file(segment.numbers)))
    return _merged(pieces)


def _merged(pieces: Sequence[tuple[str, str | None]]) -> str:
    """Write the ranked rows of all segments in one: of each, its parts and the table of its images' numbers."""
    if len(pieces) == 1:
        return f"read_parquet({pieces[0][0]})"
    rows = " UNION ALL ".join(
        f"SELECT r.unit, n.image, r.activation, r.row, r.col FROM read_parquet({parts}) AS r "
        f"JOIN read_parquet({numbers}, file_row_number = true) AS n ON n.file_row_number = r.image"
        for parts, numbers in pieces
    )
    # every column by its table's name: `unit` alone is a macro's parameter
    rank = "(row_number() OVER (PARTITION BY m.unit ORDER BY m.activation DESC, m.image) - 1)::INTEGER AS rank"
    return f"(SELECT m.unit, {rank}, m.image, m.activation, m.row, m.col FROM ({rows}) AS m)"


def _labels(images: Path) -> str:
    """Write the column of all labels of an image, which older atlases do not have."""
    if "labels" in pq.read_schema(images).names:
        return "i.labels"
    return "if(i.label IS NULL, [], [i.label]) AS labels"


def _own_height(manifest: Manifest, file: Callable[[Part], str]) -> str:
    """Write the height of a unit's own effective box, NULL where it is the layer's."""
    fields = {entry.spec.name: file(entry.fields) for entry in manifest.layers if entry.fields is not None}
    if len(fields) < len(manifest.layers):
        return "NULL::INTEGER"
    path = f"ifnull({_map(fields)}[layer], {_NO_LAYER})"
    return f"(SELECT f.effective_height_px FROM read_parquet({path}) AS f WHERE f.unit = unit)"


def _boxes(spec: LayerSpec) -> str:
    """Write box, padding and middle of each grid row and of each column, nine numbers; a token's come last.

    Top and bottom of each depend on the row alone, left and right on the column alone. The size is six numbers: height
    and width of the field's proportions, of the layer's effective box and of the input.
    """
    field, token = spec.receptive_field, Location(-1, 0)
    rows = [_nine(field, Location(row, 0), 0) for row in range(spec.grid.height)]
    cols = [_nine(field, Location(0, col), 1) for col in range(spec.grid.width)]
    sizes = [*(field.size or field.input), *field.effective, *field.input]
    known = {"rows": [*rows, _nine(field, token, 0)], "cols": [*cols, _nine(field, token, 1)], "size": sizes}
    return "{" + ", ".join(f"'{name}': {json.dumps(numbers)}" for name, numbers in known.items()) + "}"


def _nine(field: ReceptiveField, location: Location, axis: int) -> list[int]:
    """Return box, padding and the middle on one axis of a location; a token's middle is not asked for."""
    middle = field.centre_at(location)[axis] if location.row >= 0 else 0
    return [*field.box_at(location), *field.padding_at(location), middle]


def _in_picture(name: str, first: int) -> list[str]:
    """Write the four sides of a box in pixels of the original picture, as `Placement.to_image` finds them."""
    columns = []
    for number, side in enumerate(_SIDES):
        axis, source = (("height", "across"), ("width", "along"))[number % 2]
        crop = ("crop_row", "crop_col")[number % 2]
        scaled = f"({source}[{first + number + 1}] + {crop}) * {axis}_px::BIGINT"
        up = f" + resized_{axis}_px - 1" if number >= 2 else ""
        columns.append(f"least(({scaled}{up}) // resized_{axis}_px, {axis}_px)::INTEGER AS {name}_{side}")
    return columns


def _as_measured(name: str, first: int) -> list[str]:
    return [
        f"{('across', 'along')[number % 2]}[{first + number + 1}] AS {name}_{side}"
        for number, side in enumerate(_SIDES)
    ]


def _map(entries: dict[str, str]) -> str:
    return "MAP {" + ", ".join(f"{_text(key)}: {value}" for key, value in entries.items()) + "}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'
