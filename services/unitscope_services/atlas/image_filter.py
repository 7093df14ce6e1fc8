"""A filter of the images that a question is about: a label, and conditions on what the corpus says of them."""

import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageFilter:
    """A choice of images: those with the label, if one is given, for which all conditions hold.

    `conditions.Condition` says how a condition is written.
    """

    label: str | None = None
    where: tuple[str, ...] = ()
    conflicts: bool = False
    """Whether only images pass to which files or rows give different labels."""
    duplicates: bool = False
    """Whether only images pass that have further files with the same bytes."""


EVERY_IMAGE = ImageFilter()


def all_hold(masks: list[NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    """Return where all of some masks hold; None if there are none."""
    combined: NDArray[np.bool_] | None = None
    for mask in masks:
        combined = mask if combined is None else operator.and_(combined, mask)
    return combined
