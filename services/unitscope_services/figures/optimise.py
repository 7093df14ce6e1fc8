"""Optimised pictures on request: which units are meant, and how their pictures are to be made.

Command line, notebooks and jobs all ask through here, so that they make one picture.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

from unitscope_pipelines.derived.optimise import OptimisePlan, Optimiser, make_plan
from unitscope_pipelines.vision.optimisation.objectives import CLASSES, DIRECTIONS, check_direction, check_name
from unitscope_pipelines.vision.optimisation.optimisation import OptimisationSettings
from unitscope_pipelines.vision.optimisation.parameterisation import GREY, NOISE, Start
from unitscope_pipelines.vision.optimisation.recipes import recipe
from unitscope_schemas.answers.visuals import VisualRow
from unitscope_schemas.errors import UsageError, listing
from unitscope_schemas.progress import Tell
from unitscope_schemas.questions import OptimiseQuestion
from unitscope_schemas.units import DirectionId, Target
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.session import Session, Subject
from unitscope_services.queries.unit_selection import chosen_units
from unitscope_services.queries.visuals import visual_row


def optimise_plan(
    session: Session, units: Sequence[str], question: OptimiseQuestion, device: str = "auto"
) -> tuple[OptimisePlan, list[Target]]:
    """Return how the pictures of a question are made, and of what, each once, in the order asked.

    Raises UsageError for what is unknown or does not go together, NotFoundError for what is not in the atlas or model.
    """
    check_name(question.objective)
    if (question.direction is not None) != (question.objective in DIRECTIONS):
        raise UsageError(
            f"objective {question.objective!r} and a direction: give both, {listing(DIRECTIONS)}, or neither"
        )
    settings = OptimisationSettings(
        recipe(question.recipe, question.steps), _start(session, question.start), question.seed, question.count
    )
    if question.count > 1 and not settings.recipe.diversity:
        raise UsageError(f"recipe {question.recipe} has no diversity: make one picture at a time, with other seeds")
    objective = CLASSES.get(question.objective, question.objective)
    plan = make_plan(session.atlas.manifest, session.atlas.store, settings, objective, device, session.trust_code)
    if question.direction is not None:
        return _along(session.atlas, units, question.direction, plan)
    if question.objective in CLASSES:
        return _of_classes(session, units, plan)
    return plan, list(chosen_units(session.atlas, units, question.top))


def _of_classes(session: Session, units: Sequence[str], plan: OptimisePlan) -> tuple[OptimisePlan, list[Target]]:
    classes = session.encoder.classes()
    targets = dict.fromkeys(map(classes.unit, units))
    return replace(plan, layers={classes.layer.name: classes.layer, **plan.layers}), list(targets)


def _along(
    atlas: Atlas, units: Sequence[str], direction: Sequence[float], plan: OptimisePlan
) -> tuple[OptimisePlan, list[Target]]:
    if len(units) != 1:
        raise UsageError(f"a direction is one of a single layer: name that instead of {len(units)} of them")
    layer = atlas.layer(units[0]).spec
    try:
        vector = struct.unpack(f"<{len(direction)}f", struct.pack(f"<{len(direction)}f", *direction))
    except (OverflowError, struct.error):
        vector = ()
    check_direction(layer, vector)
    return replace(plan, direction=vector), [DirectionId.of(layer.name, vector)]


def optimise(
    session: Session, names: Sequence[str], question: OptimiseQuestion, tell: Tell | None = None
) -> Iterator[VisualRow]:
    """Make the pictures of all units one after the other, here; rows come as soon as a unit is done.

    `tell` hears how many steps are done over all units; what it raises stops the work.
    """
    plan, units = optimise_plan(session, names, question)
    make, steps = Optimiser(plan), plan.settings.recipe.steps
    for number, unit in enumerate(units):
        for visual in make(unit, _shifted(tell, number * steps, len(units) * steps)):
            yield visual_row(session.atlas, visual)
        if tell:
            tell((number + 1) * steps, len(units) * steps)


def _shifted(tell: Tell | None, before: int, total: int) -> Tell | None:
    return None if tell is None else lambda done, _: tell(before + done, total)


def _start(session: Session, name: str) -> Start:
    """Return a picture of the corpus as the network sees it, to start from; never a file from elsewhere."""
    if name in (NOISE, GREY):
        return Start(name)
    image = session.atlas.find_image(name)
    return Start(image.image_id, session.pixels(Subject(image, None)))
