"""Frames are answered as they come: all maps of a layer, a unit's rank in the corpus, its way back to the pixels."""

import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas.answers.live import LiveAnswer, LiveAsk, LiveProjection, LiveUnit
from unitscope_schemas.answers.patches import ExplainRow
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location
from unitscope_schemas.questions import ExplainQuestion, ProjectionMethod
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.crops import read_image
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.encoding.cells import Activations
from unitscope_services.encoding.encoder import Encoded, LayerMaps
from unitscope_services.queries.explain import ComputedPeaks, PicturePeaks, StoredPeaks, explain
from unitscope_services.queries.session import Session
from unitscope_services.queries.visuals import percentile

MOST_CELLS = 2**19
"""Greatest number of cells of all maps together, a byte each: no screen shows more of them, and ten frames of them a
second are 5 MB."""
TOP = 8
_NONE, _SWING = 128, 127
_FAST = 1
"""Least compression of a projection's PNG, which is shown for a moment and not stored."""

Levels = NDArray[np.uint8]


@dataclass(frozen=True)
class Answered:
    """The answer to a frame, and the bytes of its parts by name."""

    head: LiveAnswer
    parts: dict[str, bytes]


@dataclass
class Stages:
    """The seconds that each stage of the work takes."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Count the time within as time of a stage."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class Frame:
    """A picture as the network sees it, and its row if its very bytes are in the corpus: then its peaks are the stored
    ones, as everywhere else where they are stored."""

    image: ImageEntry | None
    picture: Encoded

    def peaks(self, session: Session, maps: LayerMaps) -> PicturePeaks:
        """Return the peaks of the units of the layer that was recorded."""
        if self.image is not None and session.stores_peaks:
            return StoredPeaks(session.atlas, self.image)
        return ComputedPeaks({maps.layer: maps.peaks})


def frame_of(session: Session, ask: LiveAsk, data: bytes | None) -> Frame:
    """Return the frame by its bytes, or by the name of an image of the corpus; raises PictureError, NotFoundError."""
    if data is None:
        image = session.atlas.find_image(ask.image or "")
        return Frame(image, session.encoder.read(read_image(session.atlas, image)))
    picture = session.encoder.read(data)
    return Frame(session.atlas.image_by_id(picture.image_id), picture)


def answer(session: Session, ask: LiveAsk, frame: Frame, stages: Stages) -> Answered:
    """Answer the question about a frame; raises UsageError, NotFoundError, OverloadError. Nothing of it is stored."""
    unit = UnitId.parse(ask.unit)
    session.atlas.unit(unit)
    with stages.of("forward"):
        maps = session.encoder.layer_maps(frame.picture, unit.layer)
    parts: dict[str, bytes] = {}
    projection = None
    if ask.method is not None:
        with stages.of("projection"):
            start = UnitId.parse(ask.project) if ask.project else unit
            location = _location(session, frame, start, maps)
            projection, parts["projection"] = _projected(session, frame.picture, start, location, ask.method)
    with stages.of("maps"):
        if ask.signals:
            levels = _signals(session, frame.picture, projection, unit.layer)
        else:
            levels = levels_of(session.atlas, unit.layer, maps.maps)
        shown = shrunk(levels)
        parts |= {"maps": shown.tobytes(), "map": levels[unit.channel].tobytes()}
    with stages.of("explain"):
        peaks = frame.peaks(session, maps)
        question = ExplainQuestion(layer=unit.layer, k=TOP)
        top = explain(session.atlas, peaks, frame.picture.placement, question).rows
        chosen = _unit(session.atlas, peaks, unit)
    head = LiveAnswer(
        id=ask.id,
        layer=unit.layer,
        units=len(levels),
        grid=(levels.shape[1], levels.shape[2]),
        maps_grid=(shown.shape[1], shown.shape[2]),
        unit=chosen,
        top=[_row(session.atlas, row) for row in top],
        projection=projection,
        seconds={stage: round(seconds, 5) for stage, seconds in stages.seconds.items()},
        signals=ask.signals,
        parts=list(parts),
    )
    return Answered(head, parts)


def levels_of(atlas: Atlas, layer: str, maps: Activations) -> Levels:
    """Return maps as bytes on the scale of each unit in the corpus: 0 for no activation, 255 for its maximum and above.

    For a unit that is never above zero, 0 stands for its minimum; what is not finite is 0.
    """
    known = atlas.units(layer)
    high, low = (known[name].to_numpy().astype(np.float32)[:, None, None] for name in ("maximum", "minimum"))
    low = np.where(high > 0, np.float32(0), low)
    span = np.where(high > low, high - low, np.float32(np.inf))
    with np.errstate(invalid="ignore"):
        shares = np.clip((maps - low) / span, 0, 1)
    return np.rint(255 * np.nan_to_num(shares)).astype(np.uint8)


def shrunk(levels: Levels, most: int = MOST_CELLS) -> Levels:
    """Shrink maps to at most so many cells together: each cell the highest of a square, as small as will do."""
    units, rows, cols = levels.shape
    step = 1
    while step < max(rows, cols) and units * math.ceil(rows / step) * math.ceil(cols / step) > most:
        step += 1
    if step == 1:
        return levels
    down = np.maximum.reduceat(levels, np.arange(0, rows, step), axis=1)
    smaller: Levels = np.maximum.reduceat(down, np.arange(0, cols, step), axis=2)
    return smaller


def _unit(atlas: Atlas, peaks: PicturePeaks, unit: UnitId) -> LiveUnit:
    value = float(peaks.activations(unit.layer)[unit.channel])
    location = peaks.locations(unit.layer, [unit.channel])[0]
    ranked = bool(atlas.statistics(unit.layer).ranked[unit.channel]) and math.isfinite(value)
    return LiveUnit(
        channel=unit.channel,
        activation=value if math.isfinite(value) else None,
        percentile=percentile(atlas, unit, value) if ranked else None,
        row=location.row,
        col=location.col,
        label=_label(atlas, unit),
    )


def _row(atlas: Atlas, row: ExplainRow) -> LiveUnit:
    return LiveUnit(
        channel=row.channel,
        activation=row.activation,
        percentile=row.percentile,
        row=row.row,
        col=row.col,
        label=_label(atlas, UnitId(row.layer, row.channel)),
    )


def _label(atlas: Atlas, unit: UnitId) -> str | None:
    return atlas.unit(unit).top_label


def _location(session: Session, frame: Frame, unit: UnitId, maps: LayerMaps) -> Location:
    """Return where a unit peaks on the frame: a unit of the layer that was recorded, or of another one."""
    session.atlas.unit(unit)
    if unit.layer != maps.layer:
        maps = session.encoder.layer_maps(frame.picture, unit.layer)
    return frame.peaks(session, maps).locations(unit.layer, [unit.channel])[0]


def _projected(
    session: Session, picture: Encoded, unit: UnitId, location: Location, method: ProjectionMethod
) -> tuple[LiveProjection, bytes]:
    """Return the projection of a unit's activation at a location of the frame, and its PNG."""
    from unitscope_pipelines.vision.images.diverging import FAINT_SHARE, SHOWN_SHARE, diverging_picture

    projection = session.encoder.project([picture], unit, [location], method)
    least = FAINT_SHARE * projection.layer_signal[0]
    channels = list(session.atlas.manifest.preprocessing.shown_channels)
    shown = diverging_picture(projection.pixels[0][channels].numpy(), SHOWN_SHARE, least)
    file = io.BytesIO()
    shown.picture.save(file, "PNG", compress_level=_FAST)
    told = LiveProjection(
        unit=str(unit),
        method=method,
        activation=float(projection.activation[0]),
        row=location.row,
        col=location.col,
        scale=shown.scale,
        notes=projection.notes,
    )
    return told, file.getvalue()


def _signals(session: Session, picture: Encoded, start: LiveProjection | None, layer: str) -> Levels:
    """Return the signals that reach a layer's units as bytes: 128 is none, the strongest of the layer 255 or 1."""
    if start is None:
        raise UsageError("signals are those of a projection: name its method too")
    location = Location(start.row, start.col)
    signals = session.encoder.signals(picture, UnitId.parse(start.unit), location, start.method, layer)
    strongest = float(np.abs(signals).max())
    levels: Levels = np.rint(_NONE + _SWING * signals / (strongest or 1.0)).astype(np.uint8)
    return levels
