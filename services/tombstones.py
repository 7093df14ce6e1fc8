"""Images that were taken out of an atlas by hand, while its tables still hold them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.errors import AtlasError
from schemas.manifest import Removed


def read_removed(root: Path, removed: Removed) -> list[str]:
    """Ids of the images that are out; raises AtlasError where their table is missing."""
    try:
        ids: list[str] = pq.read_table(root / removed.table.path, partitioning=None)["image_id"].to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise AtlasError(f"part {removed.table.path} of atlas {root} is missing or damaged: {error}") from None
    return ids


def regrouped(groups: NDArray[np.int32], present: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Groups of near duplicates without the absent images: named by the first that is left, none for a single one.

    A group that only an absent image held together stays one until the atlas is compacted.
    """
    found = groups.copy()
    for group in np.unique(groups[~present & (groups >= 0)]):
        members = groups == group
        left = np.flatnonzero(members & present)
        found[members] = left[0] if len(left) > 1 else -1
    return found
