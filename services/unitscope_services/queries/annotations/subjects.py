"""The units and images that people write about, by the names that they give."""

from collections.abc import Sequence

from unitscope_schemas.errors import NotFoundError, listing
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas


def subject_named(atlas: Atlas, text: str) -> str:
    """Return a unit as `LAYER:UNIT`, or the whole id of an image by id or path; raises NotFoundError, UsageError."""
    layer, colon, channel = text.rpartition(":")
    if colon and channel.isdecimal() and atlas.manifest.layer(layer) is not None:
        unit = UnitId.parse(text)
        atlas.unit(unit)
        return str(unit)
    image = atlas.catalogue.known(text)
    if image is None:
        raise NotFoundError(f"{text!r} is neither a unit, LAYER:UNIT, nor an image of this atlas, by id or path")
    return image.image_id


def subjects_named(atlas: Atlas, texts: Sequence[str]) -> list[str]:
    """Return whole names of all subjects; raises NotFoundError that names those that are none."""
    subjects, missing = list[str](), list[str]()
    for text in texts:
        try:
            subjects.append(subject_named(atlas, text))
        except NotFoundError:
            missing.append(text)
    if missing:
        raise NotFoundError(f"nothing is written: the atlas {atlas.name} does not have {listing(missing)}")
    return subjects
