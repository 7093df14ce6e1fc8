"""A client puts the questions of an opened atlas to a running server, from a notebook or program."""

import json
import re
import time
from pathlib import Path
from urllib.parse import quote, urlencode

import pyarrow as pa
import pyarrow.compute as pc

from unitscope.arguments import names_checked
from unitscope.asking import asks, asks_about, bins_table, check_size
from unitscope.connection import API, Connection, fields_of
from unitscope.questions import Questions
from unitscope_schemas import questions
from unitscope_schemas.answers.annotations import (
    AnnotateQuestion,
    AnnotationRow,
    AnnotationsQuestion,
    CollectionItem,
    CollectQuestion,
)
from unitscope_schemas.errors import NotFoundError, UnitscopeError, UsageError, listing
from unitscope_schemas.formats import as_table
from unitscope_schemas.question import Question, is_file
from unitscope_schemas.units import UnitId, parse_target

_ID = re.compile(r"[0-9a-fA-F]{6,64}")
"""Pattern of an image id or its first digits; all else is a path in the corpus."""
_UNIT = re.compile(r".+:[0-9]{1,10}")
"""Pattern of a unit; all else is an image."""
_LOOK_EVERY_S = 0.5
"""Time between two looks at a job of the server, in seconds."""


class Client(Questions):
    """Questions to one atlas of a server, with the methods and the tables of `unitscope.open_atlas`.

    `url` is the server's address; where it serves several atlases, `atlas` names one. A server that asks for keys
    needs `key`. What the server refuses is raised as the error that `open_atlas` would raise, with its words.
    """

    @names_checked
    def __init__(self, url: str, key: str | None = None, atlas: str | None = None) -> None:
        self._server = Connection(url, key)
        rows = self._server.document("atlases")["rows"]
        names = [row["name"] for row in rows]
        if atlas is None and len(names) != 1:
            raise UsageError(f"{url} serves {len(names)} atlases; name one: {listing(names) or 'there are none'}")
        if atlas is not None and atlas not in names:
            raise NotFoundError(f"atlas {atlas!r} is not served at {url}; there are {listing(names) or 'none'}")
        self._summary = next(row for row in rows if atlas in (None, row["name"]))
        self._atlas = f"atlases/{quote(self._summary['name'])}"

    @names_checked
    def layers(self) -> pa.Table:
        return self._server.table(f"{self._atlas}/layers")

    @asks_about(questions.UnitsQuestion)
    def units(self, layer: str, question: questions.UnitsQuestion) -> pa.Table:
        return self._server.whole_table(f"{self._layer(layer)}/units", question)

    @asks(questions.ImagesQuestion)
    def images(self, question: questions.ImagesQuestion) -> pa.Table:
        return self._server.whole_table(f"{self._atlas}/images", question)

    @asks(questions.SkippedQuestion)
    def skipped(self, question: questions.SkippedQuestion) -> pa.Table:
        return self._server.whole_table(f"{self._atlas}/skipped", question)

    @asks_about(questions.TopQuestion)
    def top(self, unit: str, question: questions.TopQuestion) -> pa.Table:
        return self._server.first_rows(f"{self._unit(unit)}/patches", question, question.k)

    @asks_about(questions.BandsQuestion)
    def bands(self, unit: str, question: questions.BandsQuestion) -> pa.Table:
        return self._server.table(f"{self._unit(unit)}/bands", question)

    @asks_about(questions.HistogramQuestion)
    def histogram(self, unit: str, question: questions.HistogramQuestion) -> pa.Table:
        histogram = self._server.document(f"{self._unit(unit)}/histogram", question)
        return bins_table(histogram["edges"], histogram["counts"])

    @asks_about(questions.LabelsQuestion)
    def labels(self, unit: str, question: questions.LabelsQuestion) -> pa.Table:
        return self._server.table(f"{self._unit(unit)}/labels", question)

    @asks_about(questions.SelectivityQuestion)
    def selectivity(self, unit: str, question: questions.SelectivityQuestion) -> pa.Table:
        return self._server.table(f"{self._unit(unit)}/selectivity", question)

    @asks(questions.SelectiveQuestion)
    def selective(self, question: questions.SelectiveQuestion) -> pa.Table:
        return self._server.table(f"{self._atlas}/selective", question)

    @asks_about(questions.FacetsQuestion)
    def facets(self, unit: str, question: questions.FacetsQuestion) -> pa.Table:
        return self._server.table(f"{self._unit(unit)}/facets", question)

    @asks_about(questions.SimilarQuestion)
    def similar(self, unit: str, question: questions.SimilarQuestion) -> pa.Table:
        return self._server.table(f"{self._unit(unit)}/similar", question)

    @asks_about(questions.CorrelateQuestion)
    def correlate(self, layer: str, question: questions.CorrelateQuestion) -> None:
        self._job("similar", question, unit=f"{layer}:0")

    @asks_about(questions.CompareQuestion)
    def compare(self, other: str, question: questions.CompareQuestion) -> pa.Table:
        (address,) = self._job("compare", question, other=other)
        return self.comparison(address.rpartition("/")[2])

    @names_checked
    def comparisons(self) -> pa.Table:
        return self._server.table(f"{self._atlas}/comparisons")

    @asks_about(questions.ComparisonQuestion)
    def comparison(self, identifier: str, question: questions.ComparisonQuestion) -> pa.Table:
        return self._server.whole_table(f"{self._atlas}/comparisons/{quote(identifier)}", question)

    @asks_about(questions.ExplainQuestion)
    def explain(self, image: str, question: questions.ExplainQuestion) -> pa.Table:
        return self._server.table(f"{self._image(image)}/units", question)

    @asks_about(questions.TraceQuestion)
    def trace(self, unit: str, question: questions.TraceQuestion) -> pa.Table:
        return self._server.table(f"{self._unit(unit)}/trace", question)

    @names_checked
    def digests(self, prefix: str) -> pa.Table:
        return self._server.table(f"{self._atlas}/digests/{quote(prefix, safe='')}")

    @asks_about(questions.NeighborsQuestion)
    def neighbors(self, image: str, question: questions.NeighborsQuestion) -> pa.Table:
        return self._server.table(f"{self._image(image)}/neighbors", question)

    @asks_about(questions.OptimiseQuestion)
    def optimise(self, unit: str, question: questions.OptimiseQuestion) -> pa.Table:
        return self._made(self._job("optimise", question, units=[unit]))

    @asks_about(questions.ProjectQuestion)
    def project(self, unit: str, question: questions.ProjectQuestion) -> pa.Table:
        return self._made(self._job("project", question, units=[unit]))

    @names_checked
    def visualisations(self, unit: str) -> pa.Table:
        return self._server.table(f"{self._target(unit)}/visualisations")

    @names_checked
    def visualisation(self, unit: str, name: str) -> bytes:
        return self._server.ask(f"{API}/{self._target(unit)}/visualisations/{quote(name)}.png")[0]

    @names_checked
    def patch(self, unit: str, image: str, size: int | None = None) -> bytes:
        check_size(size)
        fields = {"unit": str(UnitId.parse(unit))} | ({} if size is None else {"size": size})
        address = f"{API}/{self._atlas}/patches/{self._image_id(image)}.jpg"
        return self._server.ask(f"{address}?{urlencode(fields)}")[0]

    @names_checked
    def filters(self, layer: str = "first") -> pa.Table:
        return self._server.table(f"{self._layer(layer)}/filters")

    @asks_about(questions.EigenQuestion)
    def eigen(self, unit: str, question: questions.EigenQuestion) -> pa.Table:
        return self._server.table(f"{self._unit(unit)}/eigen", question)

    @asks(AnnotationsQuestion)
    def annotations(self, question: AnnotationsQuestion) -> pa.Table:
        return self._server.table(f"{self._atlas}/annotations", question)

    @asks_about(AnnotateQuestion)
    def annotate(self, subject: str, question: AnnotateQuestion) -> pa.Table:
        is_unit = _UNIT.fullmatch(subject) is not None
        about = self._unit(subject) if is_unit else f"{self._atlas}/images/{self._image_id(subject)}"
        rows = self._server.write("PUT", f"{about}/annotation", question)
        return as_table([AnnotationRow(**row) for row in rows], AnnotationRow)

    @names_checked
    def collections(self) -> pa.Table:
        return self._server.table(f"{self._atlas}/collections")

    @names_checked
    def collection(self, name: str) -> pa.Table:
        return self._server.table(f"{self._atlas}/collections/{quote(name, safe='')}")

    @asks_about(CollectQuestion)
    def collect(self, collection: str, question: CollectQuestion) -> pa.Table:
        rows = self._server.write("POST", f"{self._atlas}/collections/{quote(collection, safe='')}", question)
        return as_table([CollectionItem(**row) for row in rows], CollectionItem)

    @names_checked
    def page(self, unit: str) -> str:
        layer, channel = UnitId.parse(unit)
        name = quote(self._summary["name"])
        return f"{self._server.url}/a/{name}/layers/{quote(layer, safe='@')}/units/{channel}"

    def __repr__(self) -> str:
        about = self._summary
        contents = f"{about['images']} images × {about['units']} units of {about['model']}"
        return f"<atlas {about['name']} at {self._server.url}: {contents}>"

    def _layer(self, layer: str) -> str:
        return f"{self._atlas}/layers/{quote(layer, safe='@')}"

    def _unit(self, unit: str) -> str:
        return self._target(str(UnitId.parse(unit)))

    def _target(self, text: str) -> str:
        """Return where the server answers about a unit or a direction; raises UsageError."""
        layer, name = target = parse_target(text)
        return f"{self._layer(layer)}/{'units' if isinstance(target, UnitId) else 'directions'}/{name}"

    def _image(self, image: str) -> str:
        """Return where the server answers about an image of the corpus by id or path, or a picture file sent to it."""
        file = Path(image)
        if is_file(file):
            upload = self._server.post(f"{self._atlas}/uploads", file.read_bytes(), "application/octet-stream")
            return f"{self._atlas}/uploads/{upload['id']}"
        return f"{self._atlas}/images/{self._image_id(image)}"

    def _image_id(self, image: str) -> str:
        """Return the id of an image of the corpus, or what it begins with, by id or path."""
        if _ID.fullmatch(image):
            return image
        found: str = self._server.document(f"{self._atlas}/images", questions.ImagesQuestion(path=image))["rows"][0][
            "image_id"
        ]
        return found

    def _made(self, results: list[str]) -> pa.Table:
        """Return the rows of the pictures that a job has stored, in its order; raises NotFoundError without any."""
        if not results:
            raise NotFoundError("nothing was made: no unit that was asked for has patches")
        lists = dict.fromkeys(address.removeprefix(f"{API}/").rpartition("/")[0] for address in results)
        rows = pa.concat_tables(map(self._server.table, lists))
        names = [address.rpartition("/")[2].removesuffix(".png") for address in results]
        return rows.take(pc.index_in(pa.array(names), rows["id"].combine_chunks()))

    def _job(self, kind: str, question: Question, **about: str | list[str]) -> list[str]:
        """Return addresses of what a job of the server has stored, once it has ended.

        Raises UnitscopeError if it failed. Needs the scope compute.
        """
        job_request = {"kind": kind, "atlas": self._summary["name"], **about, **fields_of(question)}
        job = self._server.post("jobs", json.dumps(job_request).encode(), "application/json")
        while job["state"] in ("waiting", "running"):
            time.sleep(_LOOK_EVERY_S)
            job = self._server.document(f"jobs/{job['id']}")
        if job["state"] != "done":
            raise UnitscopeError(f"the server's job {job['id']} {job['state']}: {job['problem'] or 'by somebody'}")
        results: list[str] = job["results"]
        return results
