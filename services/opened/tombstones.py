"""Images that were taken out of an atlas by hand, while its tables still hold them."""

import numpy as np
from numpy.typing import NDArray


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
