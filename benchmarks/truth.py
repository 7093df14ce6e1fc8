"""Answers compared with a full scan over what the shards hold, in plain SQL."""

import duckdb
import numpy as np
import pyarrow as pa

from unitscope_pipelines.storage.segments.images import version_images
from unitscope_schemas.answers.patches import PatchPage
from unitscope_schemas.questions import HistogramQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries import units
from unitscope_services.queries.exemplars import patches

_LABEL = "label000"


def compare_with_scan(atlas: Atlas, asked: list[UnitId]) -> None:
    """Raises AssertionError where the store answers otherwise than a scan over all shards."""
    for unit in asked:
        truth = scan(atlas, unit)
        count = len(truth["image_id"])
        half = -(-count // 2)
        labelled = truth["label"] == _LABEL
        for query, ranks in (
            (TopQuestion(k=1000, duplicates="expand"), np.arange(min(1000, count))),
            (TopQuestion(k=9, duplicates="expand", quantile=(0.0, 0.5)), np.arange(half, half + 9)),
            (TopQuestion(k=9, duplicates="expand", order="asc"), np.arange(count)[:-10:-1]),
            (TopQuestion(k=9, duplicates="expand", label=_LABEL), np.flatnonzero(labelled)[:9]),
        ):
            _compare(patches(atlas, unit, query), truth, ranks)
        values = truth["activation"].astype(np.float64)
        assert units.histogram(atlas, unit, HistogramQuestion()).counts == np.histogram(values, bins=64)[0].tolist(), (
            unit
        )


def scan(atlas: Atlas, unit: UnitId) -> dict[str, np.ndarray]:
    """Every finite peak of a unit, highest first, ties by image, read from all shards."""
    shards = {str(atlas.root / receipt.peaks[unit.layer].path): receipt.shard for receipt in atlas.manifest.shards}
    with duckdb.connect() as database:
        database.execute("SET enable_progress_bar = false")
        database.register("parts", pa.table({"filename": list(shards), "shard": list(shards.values())}))
        database.register("images", version_images(atlas.manifest, atlas.store))
        return database.execute(
            "SELECT image_id, label, activation, peaks.row, peaks.col FROM read_parquet(?, filename = true) AS peaks "
            "JOIN parts USING (filename) JOIN images "
            "ON images.shard = parts.shard AND images.shard_row = peaks.image "
            "WHERE unit = ? AND isfinite(activation) ORDER BY activation DESC, images.image",
            [list(shards), unit.channel],
        ).fetchnumpy()


def _compare(page: PatchPage, truth: dict[str, np.ndarray], ranks: np.ndarray) -> None:
    assert [row.rank for row in page.rows] == ranks.tolist(), page.unit
    for row in page.rows:
        for name in ("image_id", "activation", "row", "col"):
            assert getattr(row, name) == truth[name][row.rank], (page.unit, row, name)
        above = int((truth["activation"] > np.float32(row.activation)).sum())
        assert row.percentile == (len(truth["activation"]) - above) / len(truth["activation"]), (page.unit, row)
