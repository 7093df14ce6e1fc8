"""What is stored of a layer's units, as arrays."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_schemas import tables


@dataclass(frozen=True)
class Statistics:
    """A layer's units in order of channels; `ranked`: those that have ranked images and are not dead. Knots: unit ×
    share."""

    ranked: NDArray[np.bool_]
    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    knots: NDArray[np.float32]

    @classmethod
    def of(cls, units: pa.Table) -> "Statistics":
        """Of the units table of a layer."""
        counts = units["image_count"].to_numpy()
        knots = np.full((len(counts), len(tables.KNOT_SHARES)), np.inf, np.float32)
        knots[counts > 0] = units["knots"].combine_chunks().flatten().to_numpy().reshape(-1, knots.shape[1])
        std = units["std"].to_numpy().astype(np.float64)
        return cls(
            ranked=(counts > 0) & (np.array(units["status"].to_pylist()) != "dead"),
            count=counts,
            mean=units["mean"].to_numpy().astype(np.float64),
            std=np.where(std > 0, std, 1.0),
            knots=knots,
        )
