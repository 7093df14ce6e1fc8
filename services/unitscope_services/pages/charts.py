"""A histogram as geometry, for a template to draw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unitscope_schemas.answers.patches import Histogram

WIDTH, HEIGHT = 640, 160
_GAP = 1.5


@dataclass(frozen=True)
class Bar:
    """A bin of a histogram, in units of the drawing, with what it says."""

    x: float
    y: float
    width: float
    height: float
    low: float
    high: float
    count: int
    chosen: bool
    """Whether some of the bin's images lie in the chosen percentile band."""


@dataclass(frozen=True)
class Chart:
    """Bars over activation, heights by the logarithm of one plus the count."""

    bars: list[Bar]
    zero: float | None
    """Where activation zero lies, if within."""
    most: int
    band: tuple[float, float]
    """Where the ends of the chosen percentile band lie."""
    counts: list[int]
    width: int = WIDTH
    height: int = HEIGHT


def histogram_chart(histogram: Histogram, band: tuple[float, float] | None = None) -> Chart | None:
    """Return the drawing of a histogram; None where all peaks are alike, so that there is nothing to draw."""
    counts, edges = histogram.counts, histogram.edges
    if not counts or edges[0] == edges[-1]:
        return None
    low, high = band or (0.0, 1.0)
    most, total = max(counts), sum(counts)
    step = WIDTH / len(counts)
    bars, below = [], 0
    for position, count in enumerate(counts):
        height = HEIGHT * math.log1p(count) / math.log1p(most)
        chosen = count > 0 and (below + count) / total >= low and (below + 1) / total <= high
        below += count
        bars.append(
            Bar(
                x=round(position * step + _GAP / 2, 2),
                y=round(HEIGHT - height, 2),
                width=round(step - _GAP, 2),
                height=round(height, 2),
                low=edges[position],
                high=edges[position + 1],
                count=count,
                chosen=chosen,
            )
        )
    zero = WIDTH * -edges[0] / (edges[-1] - edges[0])
    ends = tuple(round(WIDTH * place_of(share, counts), 2) for share in (low, high))
    return Chart(bars, round(zero, 2) if 0 < zero < WIDTH else None, most, (ends[0], ends[1]), counts)


def place_of(share: float, counts: Sequence[int]) -> float:
    """Return where a share of the images lies along equal bins, from 0 to 1; within a bin evenly."""
    total, below = sum(counts), 0
    for position, count in enumerate(counts):
        if share <= 0:
            break
        if count and below + count >= share * total:
            return (position + (share * total - below) / count) / len(counts)
        below += count
    return float(share > 0)
