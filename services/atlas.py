"""An opened atlas, read-only: every SQL statement lives here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas import layout, tables
from schemas.errors import AtlasError, NotFoundError, UsageError, listing
from schemas.geometry import Location, Placement, Size
from schemas.manifest import BLOCK_UNITS, LayerEntry, Manifest, Receipt, parse_manifest
from schemas.units import UnitId
from schemas.web import AtlasRow, ImageRow, LayerRow, SkippedRow
from services.database import Database, Row

_IMAGE_COLUMNS = ", ".join(tables.IMAGES.names)
_KEYS = {"desc": "rank", "asc": "-rank", "random": "hash(image::VARCHAR || ?)"}
"""What each order sorts by, ascending; unique within a unit, so it is also the cursor."""


@dataclass(frozen=True)
class Statistics:
    """A layer's units as arrays; `ranked`: those that have ranked images and are not dead. Knots: unit × share."""

    ranked: NDArray[np.bool_]
    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    knots: NDArray[np.float32]


class Atlas:
    """One sealed version of an atlas. Raises NotFoundError if there is none, AtlasError if parts are missing.

    A question that takes longer than `question_timeout_s` raises BusyError (None: as long as it takes).
    """

    def __init__(self, root: str | Path, question_timeout_s: float | None = None) -> None:
        self.root = Path(root)
        path = self.root / layout.MANIFEST
        if not path.is_file():
            raise NotFoundError(f"{root} is no atlas: it has no {layout.MANIFEST}; write one with unitscope index")
        self.manifest: Manifest = parse_manifest(path.read_text(errors="replace"), str(root))
        self.name = self.root.resolve().name
        self.version = self.manifest.version
        self._database = Database(self.root, self.manifest.hot.path, question_timeout_s)

    def close(self) -> None:
        """End what runs beside the questions."""
        self._database.close()

    def summary(self) -> AtlasRow:
        """The atlas in one row."""
        manifest = self.manifest
        return AtlasRow(
            name=self.name,
            version=manifest.version,
            model=manifest.model.spec,
            images=manifest.corpus.image_count,
            skipped=manifest.corpus.skipped_count,
            labels=manifest.corpus.label_count,
            layers=len(manifest.layers),
            units=sum(entry.spec.units for entry in manifest.layers),
            created=manifest.created,
        )

    # layers and units

    def layer(self, name: str) -> LayerEntry:
        """A recorded layer; raises NotFoundError that names those there are."""
        entry = self.manifest.layer(name)
        if entry is None:
            known = listing((entry.spec.name for entry in self.manifest.layers), most=40)
            raise NotFoundError(f"layer {name!r} is not in this atlas; it has {known}")
        return entry

    def layers(self) -> list[LayerRow]:
        """All recorded layers in the order of the forward."""
        rows = []
        for entry in self.manifest.layers:
            statuses = self.units(entry.spec.name)["status"].to_pylist()
            field = entry.spec.receptive_field
            rows.append(
                LayerRow(
                    name=entry.spec.name,
                    kind=entry.spec.kind,
                    units=entry.spec.units,
                    grid=entry.spec.grid,
                    stride=field.stride,
                    receptive_field=field.size,
                    effective_field=field.effective,
                    live=statuses.count("live"),
                    dead=statuses.count("dead"),
                )
            )
        return rows

    def units(self, layer: str) -> pa.Table:
        """The units table of a layer, in order of channels."""
        entry = self.layer(layer)
        if layer not in self._units:
            self._units[layer] = self._read_part(entry.units.path)
        return self._units[layer]

    def statistics(self, layer: str) -> Statistics:
        """The units table of a layer as arrays."""
        if layer not in self._statistics:
            self._statistics[layer] = _arrays(self.units(layer))
        return self._statistics[layer]

    def unit(self, unit: UnitId) -> Row:
        """One row of the units table; raises NotFoundError that names the valid range."""
        count = self.layer(unit.layer).spec.units
        if not 0 <= unit.channel < count:
            raise NotFoundError(f"unit {unit} does not exist: layer {unit.layer} has units 0 to {count - 1}")
        row: Row = self.units(unit.layer).slice(unit.channel, 1).to_pylist()[0]
        return row

    # ranked peaks

    def ranked(
        self,
        unit: UnitId,
        order: str,
        ranks: tuple[int, int],
        label: str | None,
        seed: int,
        after: int | None,
        limit: int,
    ) -> list[Row]:
        """Rows of a unit's ranked table with their sort `key`, from behind the key `after` on."""
        if label is None:
            ranks = _narrowed(ranks, order, after, limit)
        parameters: list[Any] = [str(seed)] if order == "random" else []
        parameters += [self._ranked_file(unit), unit.channel, *ranks, label, label]
        return self._database.rows(
            f"SELECT * FROM (SELECT {_KEYS[order]} AS key, rank, image, activation, row, col FROM read_parquet(?) "
            "WHERE unit = ? AND rank BETWEEN ? AND ? "
            "AND (? IS NULL OR image IN (SELECT image FROM images WHERE label = ?))) "
            "WHERE ? IS NULL OR key > ? ORDER BY key LIMIT ?",
            [*parameters, after, after, limit],
        )

    def group_leaders(
        self, unit: UnitId, groups: Sequence[str], ranks: tuple[int, int], label: str | None, order: str
    ) -> dict[str, int]:
        """For each duplicate group the rank of its first member among the filtered rows of a unit."""
        first = "max" if order == "asc" else "min"
        rows = self._database.rows(
            f"SELECT duplicate_group, {first}(rank) AS rank FROM read_parquet(?) AS ranked "
            "JOIN images USING (image) WHERE unit = ? AND rank BETWEEN ? AND ? "
            "AND duplicate_group IN (SELECT unnest(?)) AND (? IS NULL OR label = ?) GROUP BY duplicate_group",
            [self._ranked_file(unit), unit.channel, *ranks, list(groups), label, label],
        )
        return {row["duplicate_group"]: row["rank"] for row in rows}

    def first_ranks(self, unit: UnitId, activations: Sequence[float]) -> dict[float, int]:
        """For each activation that occurs the first rank that has it."""
        rows = self._database.rows(
            "SELECT activation, min(rank) AS rank FROM read_parquet(?) "
            "WHERE unit = ? AND activation IN (SELECT unnest(?::FLOAT[])) GROUP BY activation",
            [self._ranked_file(unit), unit.channel, list(activations)],
        )
        return {row["activation"]: row["rank"] for row in rows}

    def counts_above(self, layer: str, units: Sequence[int], activations: Sequence[float]) -> dict[int, int]:
        """For each unit of a layer how many images peak above its given activation."""
        entry = self.layer(layer)
        blocks = sorted({unit // BLOCK_UNITS for unit in units})
        files = [str(self.root / entry.ranked[block].path) for block in blocks]
        rows = self._database.rows(
            "SELECT asked.unit, count(ranked.rank) AS above FROM "
            "(SELECT unnest(?::INTEGER[]) AS unit, unnest(?::FLOAT[]) AS activation) AS asked "
            "LEFT JOIN read_parquet(?) AS ranked ON ranked.unit = asked.unit "
            "AND ranked.activation > asked.activation GROUP BY asked.unit",
            [list(units), list(activations), files],
        )
        return {row["unit"]: row["above"] for row in rows}

    def activations(self, unit: UnitId) -> np.ndarray[Any, np.dtype[np.float32]]:
        """All finite peaks of a unit in descending order."""
        columns = self._database.columns(
            "SELECT activation FROM read_parquet(?) WHERE unit = ? ORDER BY rank",
            [self._ranked_file(unit), unit.channel],
        )
        return columns["activation"]

    def peak(self, unit: UnitId, image: Row) -> Row:
        """Where and how strongly a unit peaks on one image of the corpus."""
        self.unit(unit)
        receipt = self._receipt(image)
        rows = self._database.rows(
            "SELECT activation, row, col FROM read_parquet(?) WHERE unit = ? AND image = ?",
            [str(self.root / receipt.peaks[unit.layer].path), unit.channel, image["shard_row"]],
        )
        return rows[0]

    def first_images(self, layer: str, units: Sequence[int]) -> dict[int, Row]:
        """For each of some units of a layer the image of rank 0."""
        if not units:
            return {}
        entry = self.layer(layer)
        files = [str(self.root / entry.ranked[block].path) for block in sorted({unit // BLOCK_UNITS for unit in units})]
        first = self._database.rows(
            "SELECT unit, image FROM read_parquet(?) WHERE rank = 0 AND unit IN (SELECT unnest(?))",
            [files, list(units)],
        )
        images = self.images(sorted({row["image"] for row in first}))
        return {row["unit"]: images[row["image"]] for row in first}

    def cells(self, image: Row) -> dict[str, pa.Table]:
        """By layer the peaks of every unit on one image of the corpus, in order of channels."""
        receipt = self._receipt(image)
        found = {}
        for entry in self.manifest.layers:
            name = entry.spec.name
            columns = self._database.columns(
                "SELECT unit, activation, row, col FROM read_parquet(?) WHERE image = ? ORDER BY unit",
                [str(self.root / receipt.peaks[name].path), image["shard_row"]],
            )
            found[name] = pa.table(columns)
        return found

    # images

    def images(self, numbers: Sequence[int]) -> dict[int, Row]:
        """Rows of the images table by number."""
        if not numbers:
            return {}
        rows = self._database.rows(
            f"SELECT {_IMAGE_COLUMNS} FROM images WHERE image IN ({', '.join('?' * len(numbers))})", list(numbers)
        )
        return {row["image"]: row for row in rows}

    def find_image(self, reference: str) -> Row:
        """The image with this id, an unambiguous beginning of it (at least 6 digits), or this path.

        Raises NotFoundError if there is none, UsageError if several begin so.
        """
        rows = self._images_at(reference)
        if not rows and len(reference) >= 6:
            rows = self._database.rows(
                f"SELECT {_IMAGE_COLUMNS} FROM images WHERE image_id >= ? AND image_id < ? LIMIT 2",
                [reference, reference + "g"],
            )
        if not rows:
            raise NotFoundError(
                f"image {reference!r} is not among the {self.manifest.corpus.image_count} of this atlas; "
                "give its id, the first digits of it, or its path below the corpus root"
            )
        if len(rows) > 1:
            raise UsageError(f"several images begin with {reference!r}; give more digits")
        return rows[0]

    def image_by_path(self, path: str) -> Row:
        """The image of this file below the corpus root; raises NotFoundError."""
        rows = self._images_at(path)
        if not rows:
            raise NotFoundError(f"no image of this atlas has the path {path!r} below the corpus root")
        return rows[0]

    def image_list(self, label: str | None, after: int | None, limit: int) -> list[Row]:
        """Images in order of their numbers, from behind number `after` on."""
        return self._database.rows(
            f"SELECT {_IMAGE_COLUMNS} FROM images WHERE (? IS NULL OR label = ?) AND (? IS NULL OR image > ?) "
            "ORDER BY image LIMIT ?",
            [label, label, after, after, limit],
        )

    def image_by_id(self, image_id: str) -> Row | None:
        """The image whose bytes have this digest, if it is in the atlas."""
        rows = self._database.rows(f"SELECT {_IMAGE_COLUMNS} FROM images WHERE image_id = ?", [image_id])
        return rows[0] if rows else None

    def labels(self) -> list[Row]:
        """All labels with the number of their images."""
        return self._database.rows("SELECT label, image_count FROM labels ORDER BY label", [])

    @cached_property
    def skipped(self) -> list[SkippedRow]:
        """The files of the corpus that are no usable image."""
        rows = self._read_part(self.manifest.skipped.path).to_pylist()
        return [SkippedRow(path=row["path"], size_bytes=row["size_bytes"], reason=row["reason"]) for row in rows]

    def image_row(self, image: Row) -> ImageRow:
        """An image as answers show it."""
        placement = self.placement(image)
        return ImageRow(
            **{name: image[name] for name in ("image", "image_id", "path", "other_paths", "label", "size_bytes")},
            format=image["format"],
            mode=image["mode"],
            size=placement.image,
            seen_box=placement.seen,
            duplicate_group=image["duplicate_group"],
        )

    def placement(self, image: Row) -> Placement:
        """How the image became the network's input."""
        return Placement(
            image=Size(image["height_px"], image["width_px"]),
            resized=Size(image["resized_height_px"], image["resized_width_px"]),
            crop=Location(image["crop_row"], image["crop_col"]),
            input=self.manifest.preprocessing.input,
        )

    @cached_property
    def _statistics(self) -> dict[str, Statistics]:
        return {}

    @cached_property
    def _units(self) -> dict[str, pa.Table]:
        return {}

    def _ranked_file(self, unit: UnitId) -> str:
        return str(self.root / self.layer(unit.layer).ranked[unit.channel // BLOCK_UNITS].path)

    def _images_at(self, path: str) -> list[Row]:
        return self._database.rows(
            f"SELECT {_IMAGE_COLUMNS} FROM images WHERE image IN (SELECT image FROM files WHERE path = ?)", [path]
        )

    def _receipt(self, image: Row) -> Receipt:
        return next(receipt for receipt in self.manifest.shards if receipt.shard == image["shard"])

    def _read_part(self, path: str) -> pa.Table:
        try:
            return pq.read_table(self.root / path, partitioning=None)
        except (OSError, pa.ArrowInvalid) as error:
            raise AtlasError(f"part {path} of atlas {self.name} is missing or damaged: {error}") from None


def _arrays(units: pa.Table) -> Statistics:
    counts = units["image_count"].to_numpy()
    knots = np.full((len(counts), len(tables.KNOT_SHARES)), np.inf, np.float32)
    knots[counts > 0] = units["knots"].combine_chunks().flatten().to_numpy().reshape(-1, knots.shape[1])
    std = units["std"].to_numpy().astype(np.float64)
    return Statistics(
        ranked=(counts > 0) & (np.array(units["status"].to_pylist()) != "dead"),
        count=counts,
        mean=units["mean"].to_numpy().astype(np.float64),
        std=np.where(std > 0, std, 1.0),
        knots=knots,
    )


def _narrowed(ranks: tuple[int, int], order: str, after: int | None, limit: int) -> tuple[int, int]:
    """The ranks that the next `limit` rows must have where nothing but the rank selects them: no scan, no sort."""
    first, last = ranks
    if order == "desc":
        first = first if after is None else max(first, after + 1)
        return first, min(last, first + limit - 1)
    if order == "asc":
        last = last if after is None else min(last, -after - 1)
        return max(first, last - limit + 1), last
    return ranks
