"""One figure from the first layer to the last: units with their patches and what was made of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from unitscope_pipelines.derived.visuals import list_visuals
from unitscope_pipelines.vision.models.globs import matches
from unitscope_schemas.answers.patches import PatchRow
from unitscope_schemas.errors import NotFoundError, UsageError, listing
from unitscope_schemas.questions import OptimiseQuestion, ProjectionMethod, TopQuestion
from unitscope_schemas.units import LayerSpec, UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.figures.blanks import patch_tile
from unitscope_services.figures.drawing import INK, PIXELS, QUIET, Drawing, Tile, Words, shortened
from unitscope_services.figures.project import picture_of, project_rows
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session
from unitscope_services.queries.unit_selection import spread_layers, striking_in

_MARGIN, _BLOCK, _GAP, _BLOCK_GAP, _UNIT_GAP, _ROW_GAP = 40, 196, 2, 8, 36, 30
_NAMES, _HEAD, _CAPTION = 130, 78, 38
"""Lengths in points: column of layers' names, head of the sheet, a unit's two lines."""


@dataclass(frozen=True)
class PictureGroup:
    """Pictures of one kind, and what each is in words."""

    kind: str
    pictures: tuple[tuple[Image.Image, str], ...]


@dataclass(frozen=True)
class Panel:
    """A unit with its groups of pictures."""

    unit: UnitId
    caption: str
    groups: tuple[PictureGroup, ...]


@dataclass(frozen=True)
class LayerPanels:
    """A layer with some of its units."""

    spec: LayerSpec
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class PanelStyle:
    """What is shown beside a unit's patches: projections, and a stored optimised input of this recipe and seed."""

    method: ProjectionMethod | None
    """Method of the projections; None for the one that fits the network."""
    recipe: str | None = None
    seed: int = 0


def unit_panel(session: Session, unit: UnitId, style: PanelStyle, k: int = 9) -> Panel:
    """Return a unit with its first patches and their projections; raises NotFoundError if it has none."""
    page = patches(session.atlas, unit, TopQuestion(k=k))
    if not page.rows:
        raise NotFoundError(f"unit {unit} has no patches to show: {page.note}")
    made = project_rows(session, unit, page.rows, style.method)
    cut = [patch_tile(session.atlas, unit, row, PIXELS * _BLOCK // _columns(k)).picture for row in page.rows]
    words = [_words(row) for row in page.rows]
    labels = dict.fromkeys(label for row in page.rows for label in row.labels)
    peaks = f"{page.rows[-1].activation:.3g} to {page.rows[0].activation:.3g}"
    reached, optimised = _optimised(session, unit, style)
    return Panel(
        unit=unit,
        caption=" · ".join(filter(None, [peaks, reached, ", ".join(labels)])),
        groups=(
            PictureGroup("patches", tuple(zip(cut, words, strict=True))),
            PictureGroup(
                f"{made[0].key.shown_method} projections",
                tuple((picture_of(session, visual), text) for visual, text in zip(made, words, strict=True)),
            ),
            *optimised,
        ),
    )


def project_sheet(session: Session, units: Sequence[UnitId], method: ProjectionMethod | None, k: int) -> Drawing:
    """Draw units with their first patches and projections, one line for each layer."""
    layers = dict.fromkeys(unit.layer for unit in units)
    units_of = {layer: [unit for unit in units if unit.layer == layer] for layer in layers}
    return lay_out(
        session.atlas, [layer_panels(session, layer, units_of[layer], PanelStyle(method), k) for layer in layers]
    )


def chosen_layers(atlas: Atlas, globs: Sequence[str], count: int) -> list[str]:
    """Return recorded layers that match the globs, in order; without any, `count` of them from the first to the last.

    Raises UsageError for a glob that matches none.
    """
    if not globs:
        return spread_layers(atlas, count)
    names = [entry.spec.name for entry in atlas.manifest.layers]
    for glob in globs:
        if not any(_is_meant(name, glob) for name in names):
            raise UsageError(f"no layer of this atlas matches {glob!r}; it has {listing(names, most=40)}")
    return [name for name in names if any(_is_meant(name, glob) for glob in globs)]


def layer_panels(session: Session, layer: str, units: Sequence[UnitId], style: PanelStyle, k: int = 9) -> LayerPanels:
    """Return a layer with some of its units."""
    return LayerPanels(session.atlas.layer(layer).spec, tuple(unit_panel(session, unit, style, k) for unit in units))


def hierarchy(
    session: Session, layers: Sequence[str], count: int, style: PanelStyle, tell: Callable[[str], None]
) -> Drawing:
    """Draw the most striking units of each layer; what is to be shown of them and not stored is made.

    `tell` hears what is done.
    """
    chosen = {layer: striking_in(session.atlas, layer, count) for layer in layers}
    units = tuple(str(unit) for layer_units in chosen.values() for unit in layer_units)
    if style.recipe is not None and units:
        # with torch, which a sheet of what is stored does without
        from unitscope_services.figures.optimise import optimise

        question = OptimiseQuestion(recipe=style.recipe, seed=style.seed)
        for number, row in enumerate(optimise(session, units, question)):
            reached = "no finite activation" if row.activation is None else f"{row.activation:.4g}"
            tell(f"{units[number]}: optimised to {reached}, corpus maximum {row.corpus_maximum:.4g}")
    strips = []
    for layer, layer_units in chosen.items():
        strips.append(layer_panels(session, layer, layer_units, style))
        tell(f"{layer}: {', '.join(map(str, layer_units)) or 'no live unit'}")
    return lay_out(session.atlas, strips)


def lay_out(atlas: Atlas, strips: Sequence[LayerPanels]) -> Drawing:
    """Lay panels out, one line for each layer, its units side by side; every kind of picture is named in the head."""
    shown = [strip for strip in strips if strip.panels]
    if not shown:
        raise NotFoundError("none of the layers has a live unit to show")
    panels = [panel for strip in shown for panel in strip.panels]
    kinds = dict.fromkeys(group.kind for panel in panels for group in panel.groups)
    summary, width = atlas.summary(), max(map(_panels_width, shown))
    about = f"{summary.images:,} images · each unit: {', '.join(kinds)}"
    tiles, words = (
        [],
        [
            Words(summary.model, _MARGIN, _MARGIN + 18, 22),
            Words(shortened(about, 13, width), _MARGIN, _MARGIN + 40, 13, QUIET),
        ],
    )
    top = _MARGIN + _HEAD
    for strip in shown:
        words += _names(strip.spec, top)
        left = _MARGIN + _NAMES
        for panel in strip.panels:
            words += _captions(panel, left, top)
            tiles += list(_tiles(panel, left, top + _CAPTION))
            left += _panel_width(panel) + _UNIT_GAP
        top += _CAPTION + _BLOCK + _ROW_GAP
    return Drawing(
        title=f"{summary.model}: {', '.join(str(panel.unit) for panel in panels[:3])}",
        width=width + 2 * _MARGIN,
        height=top - _ROW_GAP + _MARGIN,
        tiles=tuple(tiles),
        words=tuple(words),
    )


def _optimised(session: Session, unit: UnitId, style: PanelStyle) -> tuple[str, list[PictureGroup]]:
    """Return what the stored input that was optimised alone for the unit reaches beside the corpus, and the input.

    The input is cut to what the unit sees. Empty and nothing if there is none.
    """
    for visual in list_visuals(session.atlas.store, unit):
        key = visual.key
        if (key.kind, key.method, key.objective) != ("optimised", style.recipe, "unit") or key.count != 1:
            continue
        if key.seed != style.seed or visual.activation is None:
            continue
        shown = picture_of(session, visual)
        box = visual.box
        if box is not None:
            shown = shown.crop((box.left, box.top, box.right, box.bottom))
        maximum = session.atlas.unit(unit).maximum
        reached = f"made: {visual.activation:.3g}, corpus maximum {maximum:.3g}"
        return reached, [
            PictureGroup(f"input optimised by {key.method}", ((shown, f"activation {visual.activation:.4g}"),))
        ]
    return "", []


def _is_meant(name: str, glob: str) -> bool:
    return name == glob or matches(name.partition("@")[0], glob)


def _names(spec: LayerSpec, top: int) -> list[Words]:
    field = spec.receptive_field
    sees = "sees the whole input" if field.covers_input else "field"
    size = field.effective if field.covers_input else field.size or field.effective
    lines = [f"{spec.units} units", f"{spec.grid.height} x {spec.grid.width} grid"]
    if field.covers_input:
        lines += [sees, f"mostly {size.height} x {size.width} px"]
    else:
        lines += [f"{sees} {size.height} x {size.width} px"]
    name = Words(shortened(spec.name, 16, _NAMES - 12), _MARGIN, top + 14, 16)
    below = [Words(line, _MARGIN, top + 36 + 16 * number, 11, QUIET) for number, line in enumerate(lines)]
    return [name, *below]


def _captions(panel: Panel, left: int, top: int) -> list[Words]:
    width = _panel_width(panel)
    return [
        Words(shortened(str(panel.unit), 13, width), left, top + 12, 13, INK),
        Words(shortened(panel.caption, 11, width), left, top + 28, 11, QUIET),
    ]


def _tiles(panel: Panel, left: int, top: int) -> Iterator[Tile]:
    for group in panel.groups:
        columns = _columns(len(group.pictures))
        side = (_BLOCK - (columns - 1) * _GAP) // columns
        for number, (picture, text) in enumerate(group.pictures):
            row, col = divmod(number, columns)
            about = f"{panel.unit}, {group.kind}: {text}"
            yield Tile(picture, left + col * (side + _GAP), top + row * (side + _GAP), side, about)
        left += _BLOCK + _BLOCK_GAP


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(count))


def _panel_width(panel: Panel) -> int:
    return len(panel.groups) * (_BLOCK + _BLOCK_GAP) - _BLOCK_GAP


def _panels_width(strip: LayerPanels) -> int:
    return _NAMES + sum(_panel_width(panel) + _UNIT_GAP for panel in strip.panels) - _UNIT_GAP


def _words(row: PatchRow) -> str:
    return f"activation {row.activation:.4g}, {row.path}"
