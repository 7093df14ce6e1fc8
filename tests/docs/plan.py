"""docs/plan.md, made from the laws: `python -m tests.docs.plan` writes it."""

from dataclasses import asdict
from pathlib import Path

from unitscope_pipelines.indexing.laws import Scale, costs, remarks

PAGE = Path(__file__).parent.parent.parent / "docs" / "plan.md"
SIZES = (
    Scale(images=10**6, units=2_000, nodes=1),
    Scale(images=10**7, units=2_000, nodes=4),
    Scale(images=10**8, units=2_000, nodes=16),
    Scale(images=10**9, units=2_000, nodes=64),
)
TOLD = """# What an atlas costs

*Made by `python -m tests.docs.plan`; a test holds it to the code.*

`unitscope plan --images 1e9 --units 2000 --nodes 64` tells files, bytes, requests to an object store, memory of a
process and hours, stage by stage, for a corpus that need not be there. For one that is, `unitscope index --plan`
measures a batch of its pictures on this machine. The laws are in `unitscope_pipelines/indexing/laws.py`; a test asks
them about a small atlas that was indexed, and wants its files within a tenth and its bytes within a fifth.

The laws are those of the code as it is, and say where it stops: the driver lists and joins all files, in temporary
files of 1.1 KB for each where `TMPDIR` says; it alone takes vectors into the nearest-patch index; and each shard is
five files and one for each layer.

## From a million images to a billion

2,000 units of 4 layers, 8 workers on each node, 60 pictures a second each (EfficientNet-Lite0 on one core), 14 vectors
of 500 numbers for each picture. Memory is that of one process.
"""
SOURCES = """
## Where the constants come from

| what | figure | measured |
|---|--:|---|
| bytes of a peak, of a rank | 4.8 | atlases of 40 to a million images and 416 to 1,808 units |
| bytes of a first rank, of a unit's statistics | 7.7, 2,450 | the same |
| bytes of a layer's peaks in a shard, beside the peaks | 7,900 | the same |
| bytes of an image in its shard, in tables of images | 170, 350 | `benchmarks.catalogue 1000000`, short paths |
| bytes of a receipt, of a shard's small files | 1,450, 3,400 | `benchmarks.million 1000000` |
| listing a folder, for each file | 15 µs | a million empty files in 200 folders, by hand |
| joining files with shards, for each file | 25 µs, 90 bytes | `benchmarks.catalogue 10000000` |
| writing the tables of a segment, for each image | 350 bytes | `benchmarks.catalogue 4000000`, by hand |
| memory of the driver beside that | 1.5 GB | its libraries, and a database that joins and sorts in 0.5 |
| peaks ranked in a second by one core | 5,000,000 | real atlases; `benchmarks.million` gave 8 to 17 million |
| peaks merged in a second by one core | 50,000,000 | `benchmarks.million --segments`, not measured anew |
| memory of ranking, of merging, for each image | `ranking_memory`, `merging_memory` | tests of `indexing` |
| vectors taken into an index in a second | 8,300 | `benchmarks.patches --vectors 1000000`, two cores |
| memory of a process that scans | 2 GB | `benchmarks.workers`, EfficientNet-Lite0, batches of 32 |
| memory of a server | 0.9 GB, and 5 bytes an image | by hand; 0.2 GB are footers that it remembers |

Hours of scanning and ranking are those of workers that share the work evenly, without waiting for the network.
A million images of 321 units, one vector of one number each, in one segment: the laws say {files:,} files
and {gb:.1f} GB, and `benchmarks.million 1000000 --layers 1` wrote 6,870 and 3.1 on 2026-11-30. Nothing larger was run.
"""


def page() -> str:
    """Return the page as the laws are now."""
    run = costs(Scale(images=10**6, units=321, layers=2, regions=1, vector_width=1))
    whole = next(stage for stage in run if stage.stage == "all")
    return TOLD + "".join(map(_table, SIZES)) + SOURCES.format(files=whole.files, gb=whole.gb)


def _table(scale: Scale) -> str:
    stages = costs(scale)
    lines = [
        f"\n### {scale.images:,} images on {scale.nodes} node{'s' * (scale.nodes > 1)}\n",
        "| stage | where | files | GB written | requests | GB memory | hours |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for stage in map(asdict, stages):
        figures = [f"{stage[name]:,}" if name in ("files", "requests") else _short(stage[name]) for name in _FIGURES]
        lines.append(f"| {stage['stage']} | {stage['where']} | {' | '.join(figures)} |")
    said = remarks(scale, stages)
    return "\n".join([*lines, *([""] if said else []), *(f"- {remark}" for remark in said)]) + "\n"


_FIGURES = ("files", "gb", "requests", "memory_gb", "hours")


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


if __name__ == "__main__":
    PAGE.write_text(page())
