"""What a plan says beforehand against what a run then took."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import TINY_LAYERS
from tests.tables import manifest_of, ranked_parts
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.forecast import Forecast, forecast
from unitscope_pipelines.indexing.plan import make_plan


def test_a_plan_is_within_a_fifth_of_what_the_run_took(tiny_corpus: Path, tiny_atlas: Path) -> None:
    config = IndexConfig(corpus=str(tiny_corpus), atlas=str(tiny_atlas), layers=TINY_LAYERS, batch_size=8, workers=1)
    planned = forecast(make_plan(config, list_corpus(config.corpus), lambda _: None))
    rows = sum(part.rows for part in ranked_parts(manifest_of(tiny_atlas)))
    size = sum(file.stat().st_size for file in tiny_atlas.rglob("*") if file.is_file())
    assert planned.pending_files == 0
    assert planned.scan_seconds is None
    assert planned.rows == pytest.approx(rows, rel=0.2)
    assert planned.size_bytes == pytest.approx(size, rel=0.2)


@pytest.mark.long
def test_a_bounded_plan_tells_what_stays_and_what_is_needed_until_then(tiny_corpus: Path, tmp_path: Path) -> None:
    def planned(keep: str) -> Forecast:
        settings = {"layers": TINY_LAYERS, "batch_size": 8, "workers": 1, "keep": keep}
        config = IndexConfig(corpus=str(tiny_corpus), atlas=str(tmp_path / "atlas"), **settings)
        plan = make_plan(config, list_corpus(config.corpus), lambda _: None)
        return forecast(replace(plan, pending=plan.pending.head(0)))

    whole, kept = planned("all"), planned("top:10")
    units, files = whole.units, whole.files
    assert (whole.rows, kept.rows) == (files * units, 10 * units)
    assert (whole.temporary_bytes, kept.patch_index, kept.patch_index_bytes) == (0, "Flat", 0)
    assert kept.size_bytes < whole.size_bytes < kept.size_bytes + kept.temporary_bytes + 14 * files * units


@pytest.mark.long
def test_a_million_pictures_are_planned_in_a_minute_and_bounded_memory(tiny_corpus: Path, tmp_path: Path) -> None:
    """A network and one batch of pictures take the same memory for any corpus; each picture adds some hundred bytes."""
    picture = next(tiny_corpus.rglob("*.jpg")).read_bytes()
    _, _, few_kib = planned(tmp_path, picture, 10_000)
    plan, seconds, many_kib = planned(tmp_path, picture, 1_000_000)
    assert plan["files"] == 1_000_000
    assert seconds < 60
    assert (many_kib - few_kib) * 1024 < 600 * 1_000_000
    assert not list((tmp_path / "atlas").rglob("*")), "a plan writes nothing"


def planned(folder: Path, picture: bytes, count: int) -> tuple[dict[str, Any], float, int]:
    """The plan for a Parquet file of one picture many times, its seconds and its peak of memory in KiB."""
    part = pa.table({"image": pa.array([picture] * 10_000).dictionary_encode(), "label": ["one"] * 10_000})
    (folder / "corpus").mkdir(exist_ok=True)
    with pq.ParquetWriter(folder / "corpus" / "train.parquet", part.schema, store_schema=False) as writer:
        for _ in range(count // 10_000):
            writer.write_table(part, row_group_size=1_000)
    words = ["index", str(folder / "corpus"), "--atlas", str(folder / "atlas"), "--layers", TINY_LAYERS[0]]
    code = (
        "import json, resource, sys, time; from unitscope.cli import main; started = time.monotonic()\n"
        "try: main()\n"
        "finally: print(json.dumps([time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *words, "--plan", "--json"], capture_output=True, text=True, check=True
    )
    plan, (seconds, peak_kib) = map(json.loads, run.stdout.splitlines())
    return plan, seconds, peak_kib
