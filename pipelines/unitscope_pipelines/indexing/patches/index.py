"""The compressed index over patch vectors: which one, how much memory its build takes, how it is filled."""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from unitscope_pipelines.indexing.patches.recall import QUERIES, Truth, Tuning, tune
from unitscope_pipelines.indexing.patches.vectors import BLOCK_BYTES, VectorFile, Vectors
from unitscope_schemas.errors import CapacityError

EXACT_NUMBERS = 16_000_000
"""Count of stored numbers (50,000 vectors of 320) up to which a plain scan answers in 30 ms, exactly, without index."""
MEMORY_BYTES = 3_000_000_000
"""Memory that an index may take when served unless told otherwise; building it takes half as much again."""
_REDUCED_WIDTH = 128
_CODES = {"SQ8": 136, "RaBitQ": 32}
"""FAISS's codes by preference, with the bytes of a reduced vector and its id: 8-bit numbers, or one bit each
(Gao & Long 2024), which takes a longer short list for the same recall."""
_PER_LIST = 64
"""Count of training vectors per list; FAISS recommends 39 to 256."""
_MOST_LISTS = 65_536
_PER_NUMBER = 16
"""Count of training vectors of the reduction per number of a vector."""
_FIXED_BYTES = 96 << 20
"""Memory that allocators and libraries keep once they have read Parquet and multiplied matrices, whatever the size."""
_GROWTH = 1.44
"""Ratio of the room that lists have to the room they need: they double when full, so it is 1 / ln 2 on average."""


@dataclass(frozen=True)
class IndexPlan:
    """A compressed index of `lists` lists over vectors that are reduced to `reduced` numbers, unless 0."""

    count: int
    width: int
    lists: int
    reduced: int
    code: str

    @property
    def factory(self) -> str:
        """The name that FAISS has for the index."""
        return f"PCA{self.reduced}," * bool(self.reduced) + f"IVF{self.lists},{self.code}"

    @property
    def coded_width(self) -> int:
        """The count of numbers of a vector that is coded."""
        return self.reduced or self.width

    @property
    def training_count(self) -> int:
        """The count of vectors that the lists are learned from."""
        return min(self.count, self.lists * _PER_LIST)

    @property
    def code_bytes(self) -> int:
        """The bytes of the codes and ids of all vectors."""
        return self.count * _CODES[self.code] * self.coded_width // _REDUCED_WIDTH

    @property
    def served_bytes(self) -> int:
        """The bytes of the index when all of it is in memory: codes, middles of the lists, reduction."""
        return self.code_bytes + 4 * self.coded_width * self.lists + 4 * self.width * self.reduced

    @property
    def memory_bytes(self) -> int:
        """The peak of memory that building adds to the process: its largest stage of three, and what is always there.

        Learning the reduction holds square matrices; learning the lists the reduced sample and FAISS's copy of it;
        filling holds the codes and the queries. Each holds two blocks of vectors and one as it is read.
        """
        reduction = 4 * 8 * self.width**2 if self.reduced else 0
        lists = 2 * 4 * self.training_count * self.coded_width
        codes = int(_GROWTH * self.code_bytes)
        return _FIXED_BYTES + 3 * BLOCK_BYTES + max(reduction, lists, codes + 4 * QUERIES * self.width)


def choose_index(count: int, width: int, memory_bytes: int | None = None) -> IndexPlan | None:
    """Return the index for so many vectors that takes no more memory than this when served, None for a plain scan.

    | stored numbers (count × width)          | index                                |
    |-----------------------------------------|--------------------------------------|
    | up to 16 million                        | none: exact scan                     |
    | more, if it fits `memory_bytes`         | PCA to 128, IVF, 8-bit numbers       |
    | more                                    | PCA to 128, IVF, RaBitQ (1 bit each) |

    Without `memory_bytes` it is MEMORY_BYTES, or the least there is; raises CapacityError if not even that fits.
    Lists: the power of two nearest to 4 · √count, or to count / 64 where that is less, for the sake of training.
    """
    if count * width <= EXACT_NUMBERS:
        return None
    lists = min(2 ** round(np.log2(min(4 * np.sqrt(count), count / _PER_LIST))), _MOST_LISTS)
    reduced = _REDUCED_WIDTH if width > _REDUCED_WIDTH else 0
    plans = [IndexPlan(count, width, lists, reduced, code) for code in _CODES]
    fits = [plan for plan in plans if plan.served_bytes <= (memory_bytes or MEMORY_BYTES)]
    if memory_bytes is not None and not fits:
        raise CapacityError(
            f"an index of {count:,} patches takes at least {plans[-1].served_bytes / 1e9:.3g} GB when served, more "
            f"than patch_memory_gb {memory_bytes / 1e9:g}: allow it that, or embed a layer with fewer regions"
        )
    return [*fits, plans[-1]][0]


def build_memory(plan: IndexPlan | None) -> int:
    """Return the bytes by which building an index, or none, raises the peak of the process, within a fifth."""
    return plan.memory_bytes if plan else _FIXED_BYTES


def build_index(vectors: VectorFile, plan: IndexPlan) -> tuple[faiss.Index, Tuning]:
    """Train on seeded samples, fill in one pass over the file that also finds the true nearest, then tune."""
    reduction = _learn_reduction(vectors, plan) if plan.reduced else None
    coded = faiss.index_factory(plan.coded_width, f"IVF{plan.lists},{plan.code}", faiss.METRIC_L2)
    inverted = faiss.extract_index_ivf(coded)
    nearest_list = _nearest_list(plan.coded_width)
    inverted.clustering_index = nearest_list
    inverted.train(_training_sample(vectors, reduction, plan))
    inverted.clustering_index = None  # type: ignore[assignment]  # it goes with this function
    queries = spread(plan.count, min(QUERIES, plan.count), seed=2)
    truth = Truth(vectors.rows(queries), queries // vectors.regions, vectors.regions)
    for start, block in vectors.blocks():
        truth.add(start, block)
        reduced = _reduce(reduction, block)
        lists = np.ascontiguousarray(nearest_list.search(reduced, 1)[1].ravel())
        inverted.add_core(len(reduced), faiss.swig_ptr(reduced), None, faiss.swig_ptr(lists))
    index = coded if reduction is None else faiss.IndexPreTransform(reduction, coded)
    return index, tune(index, vectors, truth)


def spread(count: int, size: int, seed: int) -> NDArray[np.int64]:
    """Return `size` ids in ascending order, one at random from each of as many equal parts of all."""
    return ((np.arange(size) + np.random.default_rng(seed).random(size)) * (count / size)).astype(np.int64)


def _learn_reduction(vectors: VectorFile, plan: IndexPlan) -> faiss.LinearTransform:
    """Learn the projection to the principal axes of a sample that is read in blocks.

    RaBitQ wants variance to be spread evenly over the numbers: a random rotation does that.
    """
    total, products = np.zeros(plan.width), np.zeros((plan.width, plan.width))
    ids = spread(plan.count, min(plan.count, _PER_NUMBER * plan.width), seed=0)
    for start in range(0, len(ids), vectors.block_rows):
        block = vectors.rows(ids[start : start + vectors.block_rows])
        total += block.sum(axis=0)
        products += block.T @ block
    mean = total / len(ids)
    axes = np.linalg.eigh(products / len(ids) - np.outer(mean, mean))[1][:, -plan.reduced :].T
    if plan.code == "RaBitQ":
        axes = np.linalg.qr(np.random.default_rng(0).standard_normal((plan.reduced, plan.reduced)))[0] @ axes
    reduction = faiss.LinearTransform(plan.width, plan.reduced, True)
    faiss.copy_array_to_vector(axes.astype(np.float32).ravel(), reduction.A)
    faiss.copy_array_to_vector((-axes @ mean).astype(np.float32), reduction.b)
    reduction.is_trained = True
    return reduction


def _training_sample(vectors: VectorFile, reduction: faiss.LinearTransform | None, plan: IndexPlan) -> Vectors:
    """Return reduced vectors to learn the lists from, read in blocks."""
    ids = spread(plan.count, plan.training_count, seed=1)
    sample = np.empty((len(ids), plan.coded_width), np.float32)
    for start in range(0, len(ids), vectors.block_rows):
        block = slice(start, start + vectors.block_rows)
        sample[block] = _reduce(reduction, vectors.rows(ids[block]))
    return sample


def _nearest_list(width: int) -> faiss.Index:
    """Return what learns the lists and assigns vectors to them: on all GPUs that FAISS can use, else on the CPU.

    Both are most of the work of a build. The index itself stays on the CPU, so nothing has to be moved back.
    """
    flat = faiss.IndexFlatL2(width)
    return faiss.index_cpu_to_all_gpus(flat) if faiss.get_num_gpus() else flat


def _reduce(reduction: faiss.LinearTransform | None, vectors: Vectors) -> Vectors:
    """Return the vectors as they are coded, vector × coded width."""
    reduced: Vectors = vectors if reduction is None else reduction.apply(vectors)
    return reduced
