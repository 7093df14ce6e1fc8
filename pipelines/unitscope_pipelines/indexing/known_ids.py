"""The images whose forward has run, which workers look up."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_schemas.errors import AtlasError

_DIGEST = np.dtype("S32")


def digests(ids: Iterable[str], where: str) -> NDArray[np.bytes_]:
    """Return the digests that ids write, 32 bytes each; raises AtlasError that says where for other text."""
    try:
        return np.frombuffer(bytes.fromhex("".join(ids)), _DIGEST)
    except ValueError:
        raise AtlasError(f"{where} is damaged: what it holds as ids of images are none") from None


@dataclass(frozen=True)
class KnownIds:
    """Ids of images, found by bisection. The workers of a node share one copy, of 32 bytes for each."""

    digests: NDArray[np.bytes_] = field(default_factory=lambda: np.empty(0, _DIGEST))
    """The digests that the ids write, each once, in ascending order."""

    @classmethod
    def of(cls, columns: Iterable[tuple[str, pa.ChunkedArray]]) -> "KnownIds":
        """Take the ids of some columns, each with the path of its part; raises AtlasError for what is no id."""
        found = bytearray()
        for path, ids in columns:
            found += digests(ids.to_pylist(), f"part {path}").tobytes()
        ordered = np.frombuffer(found, _DIGEST)
        ordered.sort()
        is_first = np.ones(len(ordered), bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        return cls(ordered if is_first.all() else ordered[is_first])

    def __contains__(self, image_id: str) -> bool:
        digest = np.array(bytes.fromhex(image_id), _DIGEST)
        place = int(np.searchsorted(self.digests, digest))
        return place < len(self.digests) and bool(self.digests[place] == digest)

    def __len__(self) -> int:
        return len(self.digests)
