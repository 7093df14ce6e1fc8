"""Jobs of a server: what may be asked for, and how far a job has come."""

from typing import Annotated, Literal

from pydantic import Field

from unitscope_schemas.answers.served import Answer
from unitscope_schemas.questions import CompareQuestion, CorrelateQuestion, OptimiseQuestion, ProjectQuestion

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]


AtlasName = Annotated[str, Field(description="the atlas, as the server calls it")]
Targets = Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]


class OptimiseJob(OptimiseQuestion):
    """Optimise inputs for units of an atlas."""

    kind: Literal["optimise"]
    atlas: AtlasName
    units: Annotated[
        Targets,
        Field(
            description="each `LAYER:UNIT`, or a layer or a glob on layers for all of its live units; of the objective "
            "class each the index or label of a class, of direction one layer"
        ),
    ]


class ProjectJob(ProjectQuestion):
    """Project patches of units of an atlas back to their pixels."""

    kind: Literal["project"]
    atlas: AtlasName
    units: Annotated[
        Targets, Field(description="each `LAYER:UNIT`, or a layer or a glob on layers for all of its live units")
    ]


class SimilarJob(CorrelateQuestion):
    """Compute the co-activation of two layers' units, so that similar units can be told by it."""

    kind: Literal["similar"]
    atlas: AtlasName
    unit: Annotated[str, Field(description="`LAYER:UNIT`: a unit of the layer")]


class CompareJob(CompareQuestion):
    """Compare an atlas, which keeps the result, with another one of the same pictures."""

    kind: Literal["compare"]
    atlas: AtlasName
    other: Annotated[str, Field(min_length=1, description="the second atlas, as the server calls it")]


JobQuery = Annotated[OptimiseJob | ProjectJob | SimilarJob | CompareJob, Field(discriminator="kind")]
"""Any job that can be asked for: a further kind is a further member here, and an entry in `services.server.kinds`."""


class Job(Answer):
    """How far a job has come. What it made is stored in the atlas and stays when the server forgets the job."""

    id: str
    kind: str
    atlas: str
    state: JobState
    done: int
    total: int
    """Of `unit`; 0 until it is known."""
    unit: str
    created: str
    seconds: float
    """Since it began to run, until it ended."""
    problem: str | None
    """Why it failed."""
    results: tuple[str, ...]
    """Addresses of what is made so far."""
    query: JobQuery


class JobPage(Answer):
    rows: list[Job]
    next: str | None = None
