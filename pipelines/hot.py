"""The hot database: the images' keys in DuckDB's native form, for look-ups by number, id and path."""

import os
from pathlib import Path

import duckdb

from pipelines.storage import write_atomically
from schemas import layout
from schemas.manifest import Part


def build_hot(atlas: Path, version: str, images: Part) -> Part:
    """Write the version's hot database; rebuildable from the images table at any time."""

    def write(file: Path) -> None:
        with duckdb.connect(os.fspath(file)) as database:
            database.execute(
                "CREATE TABLE images AS SELECT * FROM read_parquet(?) ORDER BY image", [str(atlas / images.path)]
            )
            for column in ("image", "image_id", "path"):
                database.execute(f"CREATE UNIQUE INDEX images_by_{column} ON images ({column})")
            database.execute(
                "CREATE TABLE labels AS SELECT label, count(*) AS image_count FROM images "
                "WHERE label IS NOT NULL GROUP BY label ORDER BY label"
            )
            database.execute(
                "CREATE TABLE files AS SELECT path, image FROM images "
                "UNION ALL SELECT unnest(other_paths), image FROM images ORDER BY path"
            )
            database.execute("CHECKPOINT")

    return write_atomically(atlas, layout.hot(version), write, images.rows)
