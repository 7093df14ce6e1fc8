"""What an atlas of any size costs, stage by stage: laws, whose constants were measured (docs/plan.md)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import ceil

from unitscope_pipelines.indexing.patches.index import build_memory, choose_index
from unitscope_pipelines.indexing.ranking.merging import merging_memory
from unitscope_pipelines.indexing.ranking.ranker import ranking_memory
from unitscope_pipelines.storage.long_tables.database import MEMORY_BYTES
from unitscope_schemas.errors import UsageError
from unitscope_schemas.manifest import BLOCK_UNITS
from unitscope_schemas.tables import FIRST_RANKS

BYTES_PER_PEAK = 4.8
BYTES_PER_RANK = 4.8
BYTES_PER_FIRST_RANK = 7.7
BYTES_PER_UNIT = 2_450
BYTES_PER_PEAKS_PART = 7_900
"""Measured, as the four before, on atlases of 40 to a million images and 416 to 1,808 units."""
RANKED_PER_S = 5_000_000
"""Count of peaks that one core ranks in a second."""
MERGED_PER_S = 50_000_000
"""Count of peaks whose statistics over segments one core makes in a second."""

_MUCH_MEMORY_GB, _MUCH_OF_THE_TIME, _MANY_FILES = 64, 0.25, 100_000
"""Memory and files that people will want to know of, and the share of the time that one machine should not take."""
_MOST_IMAGES = 2**31 - 1
"""Numbers of images have 32 bits."""
_PROCESS_BYTES, _SCANNER_BYTES = 600_000_000, 2_000_000_000
"""Memory of a process that has its libraries, and of one that runs EfficientNet-Lite0 on batches of 32."""
_DRIVER_BYTES = 1_000_000_000 + MEMORY_BYTES
"""Memory of the driver with its libraries, and with a database that joins and sorts."""
_LISTED_S = 15e-6
"""Seconds of the driver to list a file of a folder."""
_CATALOGUE_BYTES, _CATALOGUE_S, _TABLE_BYTES = 90, 25e-6, 350
"""Memory of the driver for each file, and its seconds, to join the files with what shards say; and its memory for each
image of a segment, while its tables are written."""
_BYTES_PER_SCANNED, _BYTES_PER_IMAGE, _BYTES_PER_RECEIPT = 170, 350, 1_450
"""Bytes of an image in what its shard writes, and in tables of images, with short paths and labels and no metadata; and
of a receipt, which the manifest holds again."""
_BYTES_PER_SHARD = 3_400
"""Bytes of a shard's small files beside their rows."""
_VECTORS_PER_S = 8_300
"""Count of vectors that are taken into an index in a second, on two cores."""
_LISTED_AT_ONCE, _READ_OF_A_PART = 1_000, 2
"""Files that a store lists in one answer; requests for a part of it: how large it is, and its bytes."""
_SERVED_BYTES, _NUMBERED_BYTES, _FOOTERS_BYTES = 700_000_000, 5, 200_000_000
"""Memory of a server, for each image of an atlas of several segments, and for the footers that it remembers."""


@dataclass(frozen=True)
class Scale:
    """How large a corpus and a network are, and what they meet. Raises UsageError for what no atlas can be."""

    images: int
    units: int
    layers: int = 4
    nodes: int = 1
    workers: int = 8
    """Processes that scan or rank on each node."""
    images_per_s: float = 60.0
    """Pictures that one worker reads, decodes and runs in a second."""
    regions: int = 14
    """Vectors that are embedded of each image."""
    vector_width: int | None = None
    """Numbers of a vector, None: as many as a layer has units."""
    shard_size: int = 1_024
    segment_images: int = 4_000_000
    price: float | None = None
    """Price of a node for an hour."""

    def __post_init__(self) -> None:
        for name in ("images", "units", "layers", "nodes", "workers", "images_per_s", "shard_size", "segment_images"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be more than 0, not {getattr(self, name)}")
        if self.images > _MOST_IMAGES:
            raise UsageError(f"an atlas numbers at most {_MOST_IMAGES:,} images; {self.images:,} are several atlases")
        if self.layers > self.units:
            raise UsageError(f"{self.layers} layers have at least so many units, not {self.units}")

    @property
    def cells(self) -> int:
        """Rows of peaks, and of ranks."""
        return self.images * self.units

    @property
    def widest(self) -> int:
        """Units of a layer, where all have as many."""
        return ceil(self.units / self.layers)

    @property
    def vector_bytes(self) -> int:
        """Bytes of an image's vectors."""
        return 2 * self.regions * (self.vector_width or self.widest)

    @property
    def blocks(self) -> int:
        """Blocks of units of all layers, each of which is a file of every segment."""
        return self.layers * ceil(self.widest / BLOCK_UNITS)

    @property
    def shards(self) -> int:
        """What workers scan at once."""
        return ceil(self.images / self.shard_size)

    @property
    def segments(self) -> int:
        """What is ranked at once."""
        return ceil(self.images / self.segment_images)

    @property
    def all_workers(self) -> int:
        """Processes of all nodes."""
        return self.nodes * self.workers


@dataclass(frozen=True)
class StageCost:
    """What one stage costs."""

    stage: str
    where: str
    """The processes that do it: all workers, the driver, or a server."""
    files: int
    gb: float
    """What it writes, in 10⁹ bytes."""
    requests: int
    """Requests to an object store, if the corpus or the atlas is there."""
    memory_gb: float
    """Memory of a process, in 10⁹ bytes."""
    hours: float
    cost: float | None
    """Price of all nodes for these hours, None where none is known."""


def costs(scale: Scale) -> list[StageCost]:
    """Return the stages of an index run of pictures that no atlas has, what serves them, and all together."""
    cost = partial(_cost, scale)
    stages = [
        cost("list", "driver", _listing),
        cost("scan", "workers", _scan),
        cost("catalogue", "driver", _catalogue),
        cost("rank", "workers", _rank),
        cost("embed", "driver", _embed),
        *([cost("merge", "workers", _merge)] if scale.segments > 1 else []),
        cost("seal", "driver", _seal),
    ]
    return [*stages, _all_of(stages), cost("serve", "server", _serve)]


@dataclass(frozen=True)
class _Cost:
    files: float
    bytes: float
    requests: float
    memory: float
    seconds: float


def _cost(scale: Scale, stage: str, where: str, law: Callable[[Scale], _Cost]) -> StageCost:
    found = law(scale)
    hours = found.seconds / 3600
    return StageCost(
        stage=stage,
        where=where,
        files=ceil(found.files),
        gb=found.bytes / 1e9,
        requests=ceil(found.requests),
        memory_gb=found.memory / 1e9,
        hours=hours,
        cost=None if scale.price is None else hours * scale.nodes * scale.price,
    )


def _all_of(stages: Iterable[StageCost]) -> StageCost:
    stages = list(stages)
    return StageCost(
        stage="all",
        where="",
        files=sum(stage.files for stage in stages),
        gb=sum(stage.gb for stage in stages),
        requests=sum(stage.requests for stage in stages),
        memory_gb=max(stage.memory_gb for stage in stages),
        hours=sum(stage.hours for stage in stages),
        cost=None if any(stage.cost is None for stage in stages) else sum(stage.cost or 0 for stage in stages),
    )


def remarks(scale: Scale, stages: Iterable[StageCost]) -> list[str]:
    """Return in sentences where a run of this size meets a limit, and what would do."""
    own = [stage for stage in stages if stage.where]
    most = max(own, key=lambda stage: stage.memory_gb)
    said = []
    if most.memory_gb > _MUCH_MEMORY_GB:
        said.append(
            f"{most.stage} needs {most.memory_gb:,.0f} GB of memory in one process: index parts of the corpus as "
            "atlases of their own, or give it such a machine"
        )
    whole = sum(stage.hours for stage in own)
    said += [
        f"{stage.stage} takes {stage.hours / whole:.0%} of the time on one machine, whatever the number of nodes"
        for stage in own
        if stage.where == "driver" and stage.hours > _MUCH_OF_THE_TIME * whole and scale.nodes > 1
    ]
    files = sum(stage.files for stage in own)
    if files > _MANY_FILES:
        said.append(
            f"{files:,} files, {5 + scale.layers} for each shard of {scale.shard_size} pictures: a larger --shard-size "
            "makes fewer"
        )
    return said


def _listing(scale: Scale) -> _Cost:
    return _Cost(0, 0, scale.images / _LISTED_AT_ONCE, _DRIVER_BYTES, _LISTED_S * scale.images)


def _scan(scale: Scale) -> _Cost:
    files = scale.shards * (5 + scale.layers)
    written = (
        BYTES_PER_PEAK * scale.cells
        + scale.shards * (BYTES_PER_PEAKS_PART * scale.layers + _BYTES_PER_RECEIPT + _BYTES_PER_SHARD)
        + scale.images * (_BYTES_PER_SCANNED + scale.vector_bytes)
    )
    seconds = scale.images / (scale.images_per_s * min(scale.all_workers, scale.shards))
    return _Cost(files, written, scale.images + files, _SCANNER_BYTES, seconds)


def _catalogue(scale: Scale) -> _Cost:
    """The driver reads what each shard says of files, of images and of what it skipped."""
    memory = _DRIVER_BYTES + _CATALOGUE_BYTES * scale.images
    return _Cost(0, 0, 3 * _READ_OF_A_PART * scale.shards, memory, _CATALOGUE_S * scale.images)


def _rank(scale: Scale) -> _Cost:
    """Every node fetches the peaks once: a worker reads of each shard the row group of its block."""
    files = scale.segments * (scale.blocks + scale.layers)
    read = _READ_OF_A_PART * scale.shards * scale.layers * min(scale.nodes, scale.blocks)
    memory = _PROCESS_BYTES + ranking_memory(min(scale.images, scale.segment_images), scale.widest)
    seconds = scale.cells / (RANKED_PER_S * min(scale.all_workers, scale.blocks))
    written = BYTES_PER_RANK * scale.cells + scale.segments * BYTES_PER_UNIT * scale.units
    return _Cost(files, written, files + read, memory, seconds)


def _embed(scale: Scale) -> _Cost:
    """Vectors are joined, and taken into an index, segment by segment."""
    of_segment = scale.regions * min(scale.images, scale.segment_images)
    index = choose_index(of_segment, scale.vector_width or scale.widest)
    vectors = scale.regions * scale.images
    written = scale.vector_bytes * scale.images + (index.served_bytes if index else 0) * scale.segments
    files = scale.segments * (2 if index else 1)
    memory = _PROCESS_BYTES + build_memory(index)
    seconds = vectors / _VECTORS_PER_S if index else 0
    return _Cost(files, written, files + _READ_OF_A_PART * scale.shards, memory, seconds)


def _merge(scale: Scale) -> _Cost:
    """Statistics over segments: every activation is read once."""
    read = _READ_OF_A_PART * scale.segments * scale.blocks
    memory = _PROCESS_BYTES + merging_memory(scale.images)
    seconds = scale.cells / (MERGED_PER_S * min(scale.all_workers, scale.blocks))
    return _Cost(scale.layers, BYTES_PER_UNIT * scale.units, scale.layers + read, memory, seconds)


def _seal(scale: Scale) -> _Cost:
    """Tables of images and their numbers, groups of near duplicates, first ranks, skipped files and the manifest."""
    files = scale.segments * (4 if scale.segments > 1 else 3) + 4
    written = (
        scale.images * _BYTES_PER_IMAGE
        + min(scale.images, FIRST_RANKS) * scale.units * BYTES_PER_FIRST_RANK
        + scale.shards * _BYTES_PER_RECEIPT
    )
    memory = _DRIVER_BYTES + _TABLE_BYTES * min(scale.images, scale.segment_images)
    return _Cost(files, written, files, memory, 0)


def _serve(scale: Scale) -> _Cost:
    memory = _SERVED_BYTES + _FOOTERS_BYTES + (_NUMBERED_BYTES * scale.images if scale.segments > 1 else 0)
    return _Cost(0, 0, 0, memory + 2 * _BYTES_PER_RECEIPT * scale.shards, 0)
