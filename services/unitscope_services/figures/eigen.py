"""Eigen-patches: mean and principal components of a unit's top patches, aligned at their peaks."""

from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unitscope_schemas.answers.visuals import EigenPage, EigenRow
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.geometry import Box, Location, ReceptiveField, Size
from unitscope_schemas.questions import EigenQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.crops import read_image
from unitscope_services.figures.drawing import Drawing
from unitscope_services.figures.hierarchy import LayerPanels, Panel, PictureGroup, lay_out
from unitscope_services.figures.memo import Memo
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session

Patches = NDArray[np.uint8] | NDArray[np.float32]
"""Patches as an array, patch × row × col × channel, in pixels of the network's input, of levels of 255."""


_MOST_VALUES = 16_000_000
"""Most values of all patches that are decomposed at once: 128 MB, of which the decomposition holds some five copies."""

_REMEMBERED = 4
"""Eigen-patches of an atlas that are remembered, by unit and question: they take a second, each of their pictures is a
question, and nine components of 112 pixels take 3 MB."""

_SEEN = 0.5
"""Levels of 255 by which a component must move a pixel of the patches to be drawn at full contrast."""


@dataclass(frozen=True)
class EigenPatches:
    """Mean and principal components of a unit's patches.

    `mean` is in pixel values 0 to 255; `components` are of unit length, each with its share of the patches' variance.
    """

    unit: UnitId
    size: Size
    used: int
    left_out: int
    """Patches that would reach beyond their picture: they have no pixels there to average."""
    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    shares: NDArray[np.float64]
    deviations: NDArray[np.float64]
    """Standard deviation of the patches along each component, in levels of 255 at the pixel where it is largest."""

    def scale(self, number: int) -> float:
        """Return the value that is white in the picture of a component: its largest magnitude, or more where it moves
        no pixel of the patches by half a level, so that dust is grey; infinite where it moves none at all."""
        largest, deviation = float(np.abs(self.components[number]).max()), float(self.deviations[number])
        return largest * max(1.0, _SEEN / deviation) if deviation else float("inf")


_memos: WeakKeyDictionary[Session, Memo[EigenPatches]] = WeakKeyDictionary()


def eigen_patches(session: Session, unit: UnitId, question: EigenQuestion) -> EigenPatches:
    """Compute the mean and the first principal components of a unit's first `k` patches.

    Every patch has the peak in its middle. Without a size it is the effective field's, at most half the input's: larger
    ones would hardly ever lie within their pictures. Raises UsageError where fewer than two do, or all are too much to
    decompose.
    """
    field = session.atlas.field(unit)
    k, count = question.k, question.components
    size = (
        Size(question.size, question.size)
        if question.size
        else Size(*map(min, field.effective, (side // 2 for side in field.input)))
    )
    values_each = session.atlas.manifest.preprocessing.channels * size.height * size.width
    if k * values_each > _MOST_VALUES:
        raise UsageError(
            f"{k} patches of {size.height} × {size.width} pixels are more than can be decomposed at once; choose at "
            f"most {_MOST_VALUES // values_each} patches of this size, or a smaller --size"
        )
    cut, left_out = aligned_patches(session, unit, k, size)
    if len(cut) < 2:
        raise UsageError(
            f"only {len(cut)} of {len(cut) + left_out} patches of {unit} lie within their pictures with their peak in "
            f"the middle of {size.height} × {size.width} pixels; choose a smaller --size, more patches or another layer"
        )
    shape = cut.shape[1:]
    values = cut.reshape(len(cut), -1).astype(np.float64)
    found = principal_components(values, min(count, values.shape[1], len(cut) - 1))
    return EigenPatches(
        unit=unit,
        size=size,
        used=len(cut),
        left_out=left_out,
        mean=found.mean.reshape(shape),
        components=found.components.reshape(-1, *shape),
        shares=found.shares,
        deviations=found.deviations * np.abs(found.components).max(1),
    )


class PrincipalComponents(NamedTuple):
    """The mean of rows, and the directions in which they vary most."""

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    """Directions of unit length, the widest first; the largest number of each is positive."""
    shares: NDArray[np.float64]
    """Share of each in the variance of all."""
    deviations: NDArray[np.float64]
    """Standard deviation along each."""


def principal_components(rows: NDArray[np.float64], count: int) -> PrincipalComponents:
    """Return the first principal components of rows, by the singular values of what they are apart from their mean.

    They are those of scikit-learn's PCA, which decomposes by SciPy: that keeps the interpreter from every other thread
    for as long as it takes, a second for 400 patches.
    """
    mean = rows.mean(0)
    _, widths, directions = np.linalg.svd(rows - mean, full_matrices=False)
    largest = directions[np.arange(len(directions)), np.abs(directions).argmax(1)]
    directions *= np.where(largest < 0, -1.0, 1.0)[:, None]
    variances = np.square(widths) / (len(rows) - 1)
    whole = variances.sum()
    shares = variances / whole if whole else np.zeros_like(variances)
    return PrincipalComponents(mean, directions[:count], shares[:count], np.sqrt(variances[:count]))


def eigen_page(session: Session, unit: UnitId, question: EigenQuestion) -> EigenPage:
    """Return one row for the mean and for each component; errors as of `eigen_patches`."""
    eigen = remembered_patches(session, unit, question)
    shares = [None, *eigen.shares.tolist()]
    return EigenPage(
        unit=str(unit),
        height=eigen.size.height,
        width=eigen.size.width,
        patches=eigen.used,
        left_out=eigen.left_out,
        rows=[
            EigenRow(
                component=number,
                share=share,
                scale=None if number == 0 else _finite(eigen.scale(number - 1)),
                deviation=None if number == 0 else float(eigen.deviations[number - 1]),
            )
            for number, share in enumerate(shares)
        ],
    )


def eigen_picture(session: Session, unit: UnitId, question: EigenQuestion, number: int) -> Image.Image:
    """Return the mean (0), or a component in its own scale, where grey is zero.

    Raises NotFoundError beyond the last component.
    """
    eigen = remembered_patches(session, unit, question)
    if not 0 <= number <= len(eigen.components):
        raise NotFoundError(f"unit {unit} has the mean, 0, and components 1 to {len(eigen.components)}, not {number}")
    if number == 0:
        return _drawn_mean(session, eigen)
    return _drawn(session, eigen, number - 1)


def remembered_patches(session: Session, unit: UnitId, question: EigenQuestion) -> EigenPatches:
    """Return a unit's eigen-patches, made now unless they were made lately; errors as of `eigen_patches`."""
    memo = _memos.setdefault(session, Memo(_REMEMBERED))
    return memo.get((unit, question), lambda: eigen_patches(session, unit, question))


def aligned_patches(session: Session, unit: UnitId, k: int, size: Size) -> tuple[Patches, int]:
    """Return the patches with the peak in the middle that lie within the input, and how many do not."""
    atlas = session.atlas
    page = patches(atlas, unit, TopQuestion(k=k))
    if not page.rows:
        raise NotFoundError(f"unit {unit} has no patches: {page.note}")
    field = atlas.layer(unit.layer).spec.receptive_field
    boxes = [_centred(field, Location(row.row, row.col), size) for row in page.rows]
    inside = [(row, box) for row, box in zip(page.rows, boxes, strict=True) if box.inside(field.input)]
    cut = []
    for row, box in inside:
        seen = session.encoder.read(read_image(atlas, atlas.find_image(row.image_id))).prepared.pixels
        cut.append(seen[:, box.top : box.bottom, box.left : box.right].permute(1, 2, 0).numpy())
    channels = atlas.manifest.preprocessing.channels
    kind = np.result_type(np.uint8, *(patch.dtype for patch in cut))
    return np.array(cut, kind).reshape(-1, *size, channels), len(page.rows) - len(inside)


def eigen_sheet(session: Session, patches: EigenPatches) -> Drawing:
    """Draw mean and components in one drawing: in components grey is zero, each in its own scale."""
    shown = [_drawn(session, patches, number) for number in range(len(patches.components))]
    shares = [
        f"{100 * share:.1f} % of the variance" + (", less than half a level of any pixel" if deviation < _SEEN else "")
        for share, deviation in zip(patches.shares, patches.deviations, strict=True)
    ]
    caption = f"{patches.used} patches of {patches.size.height} x {patches.size.width} px, {patches.left_out} left out"
    components = PictureGroup("components, largest share first", tuple(zip(shown, shares, strict=True)))
    groups = (PictureGroup("mean", ((_drawn_mean(session, patches), caption),)), components)
    spec = session.atlas.layer(patches.unit.layer).spec
    return lay_out(session.atlas, [LayerPanels(spec, (Panel(patches.unit, caption, groups),))])


def _drawn_mean(session: Session, patches: EigenPatches) -> Image.Image:
    """Return the picture of the mean, of the channels that pictures show."""
    mean = patches.mean[..., list(session.atlas.manifest.preprocessing.shown_channels)]
    return Image.fromarray(np.rint(np.clip(mean, 0, 255)).astype(np.uint8).squeeze())


def _drawn(session: Session, patches: EigenPatches, number: int) -> Image.Image:
    """Return the picture of a component, of the channels that pictures show, where grey is zero."""
    from unitscope_pipelines.vision.images.diverging import diverging_picture

    channels = list(session.atlas.manifest.preprocessing.shown_channels)
    values = patches.components[number][..., channels].transpose(2, 0, 1).astype(np.float32)
    return diverging_picture(values, least_scale=patches.scale(number)).picture


def _finite(scale: float) -> float | None:
    return scale if np.isfinite(scale) else None


def _centred(field: ReceptiveField, location: Location, size: Size) -> Box:
    """Return the input box of this size around a location; a class token's is the middle of the input."""
    if location.row < 0:
        row, col = field.input.height // 2, field.input.width // 2
    else:
        row, col = field.centre_at(location)
    top, left = row - size.height // 2, col - size.width // 2
    return Box(top, left, top + size.height, left + size.width)
