"""95 % intervals of shares and of rank statistics."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964
"""Standard deviations of a normal distribution that hold 95 % of it."""
_HALVINGS = 50
"""Beyond the last bit of a 64-bit float between 0 and 1."""

Numbers = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


def of_share(count: Numbers, total: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the interval of `count / total` (Wilson 1927): within 0..1, and of some width at both ends."""
    share = np.asarray(count, np.float64) / total
    middle = share + _Z**2 / (2 * total)
    half = _Z * np.sqrt(share * (1 - share) / total + (_Z / (2 * total)) ** 2)
    scale = 1 + _Z**2 / total
    return np.maximum((middle - half) / scale, 0), np.minimum((middle + half) / scale, 1)


def of_auc(auc: Numbers, inside: Numbers, outside: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the interval of the area under the curve from so many images inside and outside a class.

    Each end is the area from which the observed one lies `_Z` standard deviations away, by the variance of Hanley
    & McNeil (1982) at that end, as Wilson does for shares: a perfect area has an interval too.
    """
    observed = np.asarray(auc, np.float64)
    ends = []
    for extreme in (0.0, 1.0):
        near, far = observed.copy(), np.full_like(observed, extreme)
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            within = np.abs(observed - middle) <= _Z * np.sqrt(_auc_variance(middle, inside, outside))
            near, far = np.where(within, middle, near), np.where(within, far, middle)
        ends.append(near)
    return ends[0], ends[1]


def _auc_variance(auc: NDArray[np.float64], inside: Numbers, outside: Numbers) -> NDArray[np.float64]:
    two_inside, two_outside = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = (inside - 1) * (two_inside - auc**2) + (outside - 1) * (two_outside - auc**2)
    variance: NDArray[np.float64] = (auc * (1 - auc) + spread) / (inside * outside)
    return np.maximum(variance, 0)
