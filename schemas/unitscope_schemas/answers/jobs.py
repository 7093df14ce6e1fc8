"""The jobs of a server: what a client can request, and how far a job has come."""

from typing import Annotated, Literal

from pydantic import Field

from unitscope_schemas.answers.served import Answer
from unitscope_schemas.questions import CompareQuestion, CorrelateQuestion, OptimiseQuestion, ProjectQuestion, Text

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]


AtlasName = Annotated[Text, Field(description="the atlas, as the server calls it")]
Targets = Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)]


class OptimiseJob(OptimiseQuestion):
    """A job that optimises inputs for units of an atlas."""

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
    """A job that projects patches of units of an atlas back to their pixels."""

    kind: Literal["project"]
    atlas: AtlasName
    units: Annotated[
        Targets, Field(description="each `LAYER:UNIT`, or a layer or a glob on layers for all of its live units")
    ]


class SimilarJob(CorrelateQuestion):
    """A job that computes the co-activation of two layers' units, which similarity by co-activation needs."""

    kind: Literal["similar"]
    atlas: AtlasName
    unit: Annotated[Text, Field(description="`LAYER:UNIT`: a unit of the layer")]


class CompareJob(CompareQuestion):
    """A job that compares an atlas, which stores the result, with another one of the same pictures."""

    kind: Literal["compare"]
    atlas: AtlasName
    other: Annotated[Text, Field(min_length=1, description="the second atlas, as the server calls it")]


JobQuery = Annotated[OptimiseJob | ProjectJob | SimilarJob | CompareJob, Field(discriminator="kind")]
"""Any job that a client can request: a further kind is a further member here, and an entry in
`unitscope_services.server.job_kinds`."""


class Job(Answer):
    """A job says how far it has come. What it made is stored in the atlas and stays when the server forgets the job."""

    id: str
    kind: str
    atlas: str
    state: JobState
    done: int
    total: int
    """Number of all steps, counted in `unit`; 0 until it is known."""
    unit: str
    created: str
    seconds: float
    """Seconds from the job's start to now, or to its end."""
    problem: str | None
    """Reason why the job failed."""
    results: tuple[str, ...]
    """Addresses of the results that are stored so far."""
    query: JobQuery


class JobPage(Answer):
    """A page of jobs with the cursor to the next page."""

    rows: list[Job]
    next: str | None = None
