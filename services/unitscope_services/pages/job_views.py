"""What the pages of jobs show: what each is about, how far it is, and where its results are to be seen."""

from dataclasses import dataclass

from unitscope_schemas.answers.jobs import CompareJob, Job, OptimiseJob, ProjectJob, SimilarJob
from unitscope_schemas.errors import UsageError
from unitscope_schemas.units import UnitId
from unitscope_services.server.job_kinds import KINDS
from unitscope_services.server.job_registry import has_ended
from unitscope_services.server.links import Links


@dataclass(frozen=True)
class JobView:
    """A job as its page shows it.

    `pictures`: results that are pictures; `leads`: words and address of the page where the results show.
    """

    job: Job
    about: str
    running: bool
    pictures: list[str]
    leads: tuple[str, str] | None


def job_view(job: Job) -> JobView:
    """Return a job as its page shows it."""
    return JobView(
        job=job,
        about=KINDS[job.kind].about(job.query),
        running=not has_ended(job),
        pictures=[address for address in job.results if address.endswith(".png")],
        leads=_leads(job),
    )


def _leads(job: Job) -> tuple[str, str] | None:
    links, query = Links(job.atlas, ""), job.query
    if isinstance(query, CompareJob):
        return ("To the comparison", links.comparison(job.results[0].rpartition("/")[2])) if job.results else None
    if isinstance(query, SimilarJob):
        return "To the unit", f"{links.unit(*UnitId.parse(query.unit))}#similar"
    return _unit_page(links, query)


def _unit_page(links: Links, query: OptimiseJob | ProjectJob) -> tuple[str, str] | None:
    """Return the page of the job's unit, where it has just one."""
    if len(query.units) != 1:
        return None
    try:
        return "To the unit", links.unit(*UnitId.parse(query.units[0]))
    except UsageError:
        return None  # a layer, or a glob
