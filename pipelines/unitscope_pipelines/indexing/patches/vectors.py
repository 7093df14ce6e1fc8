"""The file of patch vectors, written and read in plain pieces: memory held is what a piece takes, and no more."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Vectors of 32-bit numbers, vector × number, each of unit length or all zeros."""

BLOCK_BYTES = 32 << 20
"""Bytes of 32-bit numbers that are in memory at a time while the file is scanned."""


@dataclass(frozen=True)
class VectorFile:
    """A .npy file of `count` vectors of `width` 16-bit numbers; a vector's id is `image · regions + region`.

    Not memory-mapped: mapped pages would count as memory of the process, and a full disk would kill it.
    """

    path: Path
    count: int
    width: int
    regions: int

    @property
    def block_rows(self) -> int:
        """The count of vectors of whole images that fill a block."""
        return self.regions * max(1, BLOCK_BYTES // (4 * self.width * self.regions))

    def write(self, images: Iterable[tuple[int, NDArray[np.float16]]]) -> None:
        """Write the file from numbered images, region × number each, that come in any order."""
        np.lib.format.open_memmap(self.path, "w+", np.float16, (self.count, self.width))
        begin = self._begin()
        with self.path.open("rb+", buffering=0) as file:
            for image, vectors in images:
                offset = begin + 2 * self.width * self.regions * image
                os.pwrite(file.fileno(), np.ascontiguousarray(vectors).data, offset)

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """Read all vectors in order, whole images at a time, each block with the id of its first vector."""
        begin = self._begin()
        for start in range(0, self.count, self.block_rows):
            length = min(self.block_rows, self.count - start) * self.width
            stored = np.fromfile(self.path, np.float16, length, offset=begin + 2 * self.width * start)
            yield start, self._unit(stored)

    def rows(self, ids: NDArray[np.int64]) -> Vectors:
        """Read the vectors of some ids, in their order; fastest where ids ascend."""
        vectors = np.empty((len(ids), self.width), np.float32)
        stored = np.empty((min(len(ids), self.block_rows), self.width), np.float16)
        begin = self._begin()
        with self.path.open("rb", buffering=0) as file:
            for start in range(0, len(ids), self.block_rows):
                part = ids[start : start + self.block_rows].tolist()
                for row, vector in zip(stored, part, strict=False):
                    os.preadv(file.fileno(), [row.data], begin + 2 * self.width * vector)
                vectors[start : start + len(part)] = self._unit(stored[: len(part)])
        return vectors

    def _begin(self) -> int:
        """Return the byte at which the first vector begins, behind the header."""
        return self.path.stat().st_size - 2 * self.width * self.count

    def _unit(self, stored: NDArray[np.float16]) -> Vectors:
        """Return vectors in 32 bits and of unit length again: rounding to 16 bits has moved the lengths."""
        vectors = stored.reshape(-1, self.width).astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
        return vectors
