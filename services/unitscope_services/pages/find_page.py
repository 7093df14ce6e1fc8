"""What a text in the field for finding leads to: the thing that it names, or a page of what it may mean."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from unitscope_schemas.answers.relations import SelectiveRow
from unitscope_schemas.answers.served import AtlasRow
from unitscope_schemas.questions import SelectiveQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.pages.pages import unit_strip
from unitscope_services.pages.views import PatchStrip
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.labels import selective_units
from unitscope_services.server.links import Links, links_of

_UNITS, _PATCHES, _IMAGES, _NAMES = 12, 6, 24, 40
"""How many units, patches of each, images and names are shown."""
_PICTURE_PX = 128


@dataclass(frozen=True)
class UnitMatch:
    """A unit that likes a label, with its first patches."""

    row: SelectiveRow
    strip: PatchStrip


@dataclass(frozen=True)
class ImageMatch:
    """An image whose path holds the text."""

    row: ImageEntry
    picture: str
    href: str


@dataclass(frozen=True)
class FindView:
    """What a text may mean.

    `labels` and `layers` hold the text in their names, or are near to it where nothing holds it; `more_images`: whether
    further paths hold it.
    """

    atlas: AtlasRow
    links: Links
    text: str
    label: str | None
    units: list[UnitMatch]
    images: list[ImageMatch]
    more_images: bool
    layers: list[str]
    labels: list[str]
    nothing: bool
    first_unit: UnitId
    command: str
    rows_api: str
    rows_query: str


def place_named(atlas: Atlas, text: str) -> str | None:
    """Return the page of the unit, layer or image that a text names; None if it is none of these, or a label.

    Of a unit's layer the end of its name will do, as in `15:12`, where no other layer ends so.
    Raises NotFoundError for a unit beyond those of its layer, UsageError for the beginning of several image ids.
    """
    links = links_of(atlas)
    layer, _, channel = text.rpartition(":")
    layer = _layer_meant(atlas, layer)
    if not text:
        return links.home
    if atlas.manifest.layer(text) is not None:
        return links.layer(text)
    if atlas.manifest.layer(layer) is not None and channel.isdecimal():
        atlas.unit(UnitId(layer, int(channel)))
        return links.unit(layer, int(channel))
    image = None if text in _labels(atlas) else atlas.catalogue.known(text)
    return None if image is None else links.image(image.image_id)


def _layer_meant(atlas: Atlas, name: str) -> str:
    """Return the only layer whose last words a name is, as `15` is of `_blocks.15`; else the name itself."""
    layers = [entry.spec.name for entry in atlas.manifest.layers]
    ending = [layer for layer in layers if layer.endswith(f".{name}")]
    return ending[0] if name and name not in layers and len(ending) == 1 else name


def find_view(atlas: Atlas, text: str) -> FindView:
    """Return the units most selective for the label that a text is, and images, layers and labels that hold it."""
    links, labels = links_of(atlas), _labels(atlas)
    label = next((name for name in labels if name.casefold() == text.casefold()), None)
    label = text if text in labels else label
    rows = selective_units(atlas, SelectiveQuestion(label=label, k=_UNITS)).rows if label is not None else []
    images = atlas.catalogue.holding(text, _IMAGES + 1)
    layers = _holding([entry.spec.name for entry in atlas.manifest.layers], text)
    like = [name for name in _holding(labels, text) if name != label]
    nothing = not (rows or images or layers or like)
    return FindView(
        atlas=atlas.summary(),
        links=links,
        text=text,
        label=label,
        units=[_unit_match(atlas, row) for row in rows],
        images=[_image_match(links, row) for row in images[:_IMAGES]],
        more_images=len(images) > _IMAGES,
        layers=layers,
        labels=get_close_matches(text, labels) if nothing else like,
        nothing=nothing,
        first_unit=UnitId(atlas.manifest.layers[0].spec.name, 0),
        command=shlex.join(["unitscope", "units", atlas.name, "--label", label or text]),
        rows_api=links.api("selective") if label is not None else "",
        rows_query=links.at("", label=label),
    )


def _unit_match(atlas: Atlas, row: SelectiveRow) -> UnitMatch:
    unit = UnitId(row.layer, row.channel)
    return UnitMatch(row, unit_strip(atlas, unit, patches(atlas, unit, TopQuestion(k=_PATCHES)).rows))


def _image_match(links: Links, row: ImageEntry) -> ImageMatch:
    return ImageMatch(row, links.whole(row.image_id, _PICTURE_PX), links.image(row.image_id))


def _labels(atlas: Atlas) -> list[str]:
    return atlas.catalogue.known_labels


def _holding(names: Sequence[str], text: str) -> list[str]:
    return [name for name in names if text.casefold() in name.casefold()][:_NAMES]
