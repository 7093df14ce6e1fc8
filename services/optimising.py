"""Optimised pictures on request: which units are meant, and how their pictures are to be made.

Command line, notebooks and jobs all ask through here, so that they make one picture.
"""

from collections.abc import Callable, Iterator, Sequence

from pipelines.optimised import OptimisePlan, Optimiser, make_plan
from pipelines.vision.globs import matches
from pipelines.vision.objectives import of_unit
from pipelines.vision.optimisation import GREY, NOISE, Start, Wish
from pipelines.vision.recipes import recipe
from schemas.errors import NotFoundError, UsageError, listing
from schemas.units import UnitId
from schemas.visuals import OptimiseQuery, VisualRow
from services.atlas import Atlas
from services.database import Row
from services.subjects import Asked, Subject
from services.visualisations import visual_row

Tell = Callable[[int, int], None]


def optimise_plan(asked: Asked, query: OptimiseQuery, device: str = "auto") -> OptimisePlan:
    """How the pictures of a question are made; raises UsageError for what is unknown, NotFoundError for the start."""
    wish = Wish(recipe(query.recipe, query.steps), _start(asked, query.start), query.seed, query.count)
    if query.count > 1 and not wish.recipe.diversity:
        raise UsageError(f"recipe {query.recipe} has no diversity: make one picture at a time, with other seeds")
    of_unit(query.objective, asked.atlas.manifest.layers[0].spec, 0)
    return make_plan(asked.atlas.manifest, asked.atlas.root, wish, query.objective, device, asked.trust_code)


def chosen_units(atlas: Atlas, query: OptimiseQuery) -> list[UnitId]:
    """The units that are meant, each once, in the order asked; raises NotFoundError for what is not in the atlas."""
    names = [entry.spec.name for entry in atlas.manifest.layers]
    units: dict[UnitId, None] = {}
    for text in query.units:
        layers = [name for name in names if name == text or matches(name, text)]
        if not layers and ":" not in text:
            raise NotFoundError(f"no layer {text!r} is in this atlas; it has {listing(names, most=40)}")
        for layer in layers:
            units |= dict.fromkeys(_standing_out(atlas, layer, query.top))
        if not layers:
            unit = UnitId.parse(text)
            atlas.unit(unit)
            units[unit] = None
    return list(units)


def optimise(asked: Asked, query: OptimiseQuery, tell: Tell | None = None) -> Iterator[VisualRow]:
    """Make the pictures of all units one after the other, here; rows come as soon as a unit is done.

    `tell` hears how many steps are done over all units; what it raises stops the work.
    """
    plan, units = optimise_plan(asked, query), chosen_units(asked.atlas, query)
    make, steps = Optimiser(plan), plan.wish.recipe.steps
    for number, unit in enumerate(units):
        for visual in make(unit, _shifted(tell, number * steps, len(units) * steps)):
            yield visual_row(asked.atlas, visual)
        if tell:
            tell((number + 1) * steps, len(units) * steps)


def _shifted(tell: Tell | None, before: int, total: int) -> Tell | None:
    return None if tell is None else lambda done, _: tell(before + done, total)


def _start(asked: Asked, name: str) -> Start:
    """A picture of the corpus as the network sees it; never a file from elsewhere."""
    if name in (NOISE, GREY):
        return Start(name)
    image = asked.atlas.find_image(name)
    return Start(image["image_id"], asked.pixels(Subject(image, None)))


def _standing_out(atlas: Atlas, layer: str, most: int | None) -> Sequence[UnitId]:
    """A layer's live units in order of channels, or those of them whose maximum stands out most."""
    live = [row for row in atlas.units(layer).to_pylist() if row["status"] == "live"]
    if most is not None:
        live = sorted(sorted(live, key=_deviations, reverse=True)[:most], key=lambda row: int(row["unit"]))
    return [UnitId(layer, row["unit"]) for row in live]


def _deviations(row: Row) -> float:
    return float((row["maximum"] - row["mean"]) / row["std"]) if row["std"] else 0.0
