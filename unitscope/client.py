"""A client puts the questions of an opened atlas to a running server, from a notebook or program."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.compute as pc

from unitscope.arguments import names_checked
from unitscope.asking import asks, asks_about, bins_table, check_size
from unitscope.questions import Questions
from unitscope_schemas import questions
from unitscope_schemas.answers.annotations import (
    AnnotateQuestion,
    AnnotationRow,
    AnnotationsQuestion,
    CollectionItem,
    CollectQuestion,
)
from unitscope_schemas.errors import (
    AccessError,
    BusyError,
    ConflictError,
    ModelError,
    NotFoundError,
    OverloadError,
    PictureError,
    ScopeError,
    TooLargeError,
    UnitscopeError,
    UsageError,
    listing,
)
from unitscope_schemas.formats import as_table
from unitscope_schemas.question import Question, is_file
from unitscope_schemas.units import UnitId, parse_target

_API = "/api/v1"
_ID = re.compile(r"[0-9a-fA-F]{6,64}")
"""Pattern of an image id or its first digits; all else is a path in the corpus."""
_UNIT = re.compile(r".+:[0-9]{1,10}")
"""Pattern of a unit; all else is an image."""
_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.5
"""Time between two looks at a job of the server, in seconds."""
_ADDRESSES = ("url", "unit_url")
"""Names of the columns that a server adds to rows: where it shows them."""
_ERRORS = {
    kind.http_status: kind
    for kind in (
        *(UsageError, PictureError, TooLargeError, AccessError, ScopeError),
        *(NotFoundError, ModelError, ConflictError, BusyError, OverloadError),
    )
}


class Client(Questions):
    """Questions to one atlas of a server, with the methods and the tables of `unitscope.open_atlas`.

    `url` is the server's address; where it serves several atlases, `atlas` names one. A server that asks for keys
    needs `key`. What the server refuses is raised as the error that `open_atlas` would raise, with its words.
    """

    @names_checked
    def __init__(self, url: str, key: str | None = None, atlas: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"server {url!r} is no address; give http:// or https://")
        self._url, self._key = url.rstrip("/"), key
        rows = self._json("atlases")["rows"]
        names = [row["name"] for row in rows]
        if atlas is None and len(names) != 1:
            raise UsageError(f"{url} serves {len(names)} atlases; name one: {listing(names) or 'there are none'}")
        if atlas is not None and atlas not in names:
            raise NotFoundError(f"atlas {atlas!r} is not served at {url}; there are {listing(names) or 'none'}")
        self._summary = next(row for row in rows if atlas in (None, row["name"]))
        self._atlas = f"atlases/{quote(self._summary['name'])}"

    @names_checked
    def layers(self) -> pa.Table:
        return self._table(f"{self._atlas}/layers")

    @asks_about(questions.UnitsQuestion)
    def units(self, layer: str, question: questions.UnitsQuestion) -> pa.Table:
        return self._whole_table(f"{self._layer(layer)}/units", question)

    @asks(questions.ImagesQuestion)
    def images(self, question: questions.ImagesQuestion) -> pa.Table:
        return self._whole_table(f"{self._atlas}/images", question)

    @asks(questions.SkippedQuestion)
    def skipped(self, question: questions.SkippedQuestion) -> pa.Table:
        return self._whole_table(f"{self._atlas}/skipped", question)

    @asks_about(questions.TopQuestion)
    def top(self, unit: str, question: questions.TopQuestion) -> pa.Table:
        return self._first_rows(f"{self._unit(unit)}/patches", question, question.k)

    @asks_about(questions.BandsQuestion)
    def bands(self, unit: str, question: questions.BandsQuestion) -> pa.Table:
        return self._table(f"{self._unit(unit)}/bands", question)

    @asks_about(questions.HistogramQuestion)
    def histogram(self, unit: str, question: questions.HistogramQuestion) -> pa.Table:
        histogram = self._json(f"{self._unit(unit)}/histogram", question)
        return bins_table(histogram["edges"], histogram["counts"])

    @asks_about(questions.LabelsQuestion)
    def labels(self, unit: str, question: questions.LabelsQuestion) -> pa.Table:
        return self._table(f"{self._unit(unit)}/labels", question)

    @asks_about(questions.SelectivityQuestion)
    def selectivity(self, unit: str, question: questions.SelectivityQuestion) -> pa.Table:
        return self._table(f"{self._unit(unit)}/selectivity", question)

    @asks(questions.SelectiveQuestion)
    def selective(self, question: questions.SelectiveQuestion) -> pa.Table:
        return self._table(f"{self._atlas}/selective", question)

    @asks_about(questions.FacetsQuestion)
    def facets(self, unit: str, question: questions.FacetsQuestion) -> pa.Table:
        return self._table(f"{self._unit(unit)}/facets", question)

    @asks_about(questions.SimilarQuestion)
    def similar(self, unit: str, question: questions.SimilarQuestion) -> pa.Table:
        return self._table(f"{self._unit(unit)}/similar", question)

    @asks_about(questions.CorrelateQuestion)
    def correlate(self, layer: str, question: questions.CorrelateQuestion) -> None:
        self._job("similar", question, unit=f"{layer}:0")

    @asks_about(questions.CompareQuestion)
    def compare(self, other: str, question: questions.CompareQuestion) -> pa.Table:
        (address,) = self._job("compare", question, other=other)
        return self.comparison(address.rpartition("/")[2])

    @names_checked
    def comparisons(self) -> pa.Table:
        return self._table(f"{self._atlas}/comparisons")

    @asks_about(questions.ComparisonQuestion)
    def comparison(self, identifier: str, question: questions.ComparisonQuestion) -> pa.Table:
        return self._whole_table(f"{self._atlas}/comparisons/{quote(identifier)}", question)

    @asks_about(questions.ExplainQuestion)
    def explain(self, image: str, question: questions.ExplainQuestion) -> pa.Table:
        return self._table(f"{self._image(image)}/units", question)

    @asks_about(questions.TraceQuestion)
    def trace(self, unit: str, question: questions.TraceQuestion) -> pa.Table:
        return self._table(f"{self._unit(unit)}/trace", question)

    @names_checked
    def digests(self, prefix: str) -> pa.Table:
        return self._table(f"{self._atlas}/digests/{quote(prefix, safe='')}")

    @asks_about(questions.NeighborsQuestion)
    def neighbors(self, image: str, question: questions.NeighborsQuestion) -> pa.Table:
        return self._table(f"{self._image(image)}/neighbors", question)

    @asks_about(questions.OptimiseQuestion)
    def optimise(self, unit: str, question: questions.OptimiseQuestion) -> pa.Table:
        return self._made(self._job("optimise", question, units=[unit]))

    @asks_about(questions.ProjectQuestion)
    def project(self, unit: str, question: questions.ProjectQuestion) -> pa.Table:
        return self._made(self._job("project", question, units=[unit]))

    @names_checked
    def visualisations(self, unit: str) -> pa.Table:
        return self._table(f"{self._target(unit)}/visualisations")

    @names_checked
    def visualisation(self, unit: str, name: str) -> bytes:
        return self._ask(f"{_API}/{self._target(unit)}/visualisations/{quote(name)}.png")[0]

    @names_checked
    def patch(self, unit: str, image: str, size: int | None = None) -> bytes:
        check_size(size)
        fields = {"unit": str(UnitId.parse(unit))} | ({} if size is None else {"size": size})
        address = f"{_API}/{self._atlas}/patches/{self._image_id(image)}.jpg"
        return self._ask(f"{address}?{urlencode(fields)}")[0]

    @names_checked
    def filters(self, layer: str = "first") -> pa.Table:
        return self._table(f"{self._layer(layer)}/filters")

    @asks_about(questions.EigenQuestion)
    def eigen(self, unit: str, question: questions.EigenQuestion) -> pa.Table:
        return self._table(f"{self._unit(unit)}/eigen", question)

    @asks(AnnotationsQuestion)
    def annotations(self, question: AnnotationsQuestion) -> pa.Table:
        return self._table(f"{self._atlas}/annotations", question)

    @asks_about(AnnotateQuestion)
    def annotate(self, subject: str, question: AnnotateQuestion) -> pa.Table:
        is_unit = _UNIT.fullmatch(subject) is not None
        about = self._unit(subject) if is_unit else f"{self._atlas}/images/{self._image_id(subject)}"
        rows = self._write("PUT", f"{about}/annotation", question)
        return as_table([AnnotationRow(**row) for row in rows], AnnotationRow)

    @names_checked
    def collections(self) -> pa.Table:
        return self._table(f"{self._atlas}/collections")

    @names_checked
    def collection(self, name: str) -> pa.Table:
        return self._table(f"{self._atlas}/collections/{quote(name, safe='')}")

    @asks_about(CollectQuestion)
    def collect(self, collection: str, question: CollectQuestion) -> pa.Table:
        rows = self._write("POST", f"{self._atlas}/collections/{quote(collection, safe='')}", question)
        return as_table([CollectionItem(**row) for row in rows], CollectionItem)

    @names_checked
    def page(self, unit: str) -> str:
        layer, channel = UnitId.parse(unit)
        name = quote(self._summary["name"])
        return f"{self._url}/a/{name}/layers/{quote(layer, safe='@')}/units/{channel}"

    def __repr__(self) -> str:
        about = self._summary
        contents = f"{about['images']} images × {about['units']} units of {about['model']}"
        return f"<atlas {about['name']} at {self._url}: {contents}>"

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
            upload = json.loads(self._ask(f"{_API}/{self._atlas}/uploads", file.read_bytes())[0])
            return f"{self._atlas}/uploads/{upload['id']}"
        return f"{self._atlas}/images/{self._image_id(image)}"

    def _image_id(self, image: str) -> str:
        """Return the id of an image of the corpus, or what it begins with, by id or path."""
        if _ID.fullmatch(image):
            return image
        found: str = self._json(f"{self._atlas}/images", questions.ImagesQuestion(path=image))["rows"][0]["image_id"]
        return found

    def _made(self, results: list[str]) -> pa.Table:
        """Return the rows of the pictures that a job has stored, in its order; raises NotFoundError without any."""
        if not results:
            raise NotFoundError("nothing was made: no unit that was asked for has patches")
        lists = dict.fromkeys(address.removeprefix(f"{_API}/").rpartition("/")[0] for address in results)
        rows = pa.concat_tables(map(self._table, lists))
        names = [address.rpartition("/")[2].removesuffix(".png") for address in results]
        return rows.take(pc.index_in(pa.array(names), rows["id"].combine_chunks()))

    def _job(self, kind: str, question: Question, **about: str | list[str]) -> list[str]:
        """Return addresses of what a job of the server has stored, once it has ended.

        Raises UnitscopeError if it failed. Needs the scope compute.
        """
        job_request = {"kind": kind, "atlas": self._summary["name"], **about, **_fields(question)}
        job = json.loads(self._ask(f"{_API}/jobs", json.dumps(job_request).encode(), "application/json")[0])
        while job["state"] in ("waiting", "running"):
            time.sleep(_LOOK_EVERY_S)
            job = self._json(f"jobs/{job['id']}")
        if job["state"] != "done":
            raise UnitscopeError(f"the server's job {job['id']} {job['state']}: {job['problem'] or 'by somebody'}")
        results: list[str] = job["results"]
        return results

    def _json(self, path: str, question: Question | None = None) -> Any:
        return json.loads(self._ask(_address(path, question))[0])

    def _table(self, path: str, question: Question | None = None) -> pa.Table:
        """Return one page of rows, without the addresses that a server adds."""
        return _read(self._ask(_address(f"{path}.arrow", question))[0])

    def _whole_table(self, path: str, question: Question) -> pa.Table:
        """Return the rows of a page if the question says how many, else all rows, page by page."""
        if getattr(question, "k", None) is not None:
            return self._table(path, question)
        return self._first_rows(path, question, sys.maxsize)

    def _first_rows(self, path: str, question: Question, count: int) -> pa.Table:
        """Return the first rows of an answer, however many pages they take."""
        page_size = min(count, questions.MOST_ROWS)
        parts, address = [], _address(f"{path}.arrow", question.model_copy(update={"k": page_size}))
        while address and count > 0:
            content, link = self._ask(address)
            parts.append(_read(content))
            count -= page_size
            address = link.partition("<")[2].partition(">")[0]
        table = pa.concat_tables(parts)
        return table.slice(0, len(table) + count) if count < 0 else table

    def _write(self, method: str, path: str, question: Question) -> list[dict[str, Any]]:
        """Return the rows that are there after a change."""
        body = json.dumps(_fields(question)).encode()
        content = self._ask(f"{_API}/{path}", body, "application/json", method)[0]
        rows: list[dict[str, Any]] = json.loads(content)["rows"] if content else []
        return rows

    def _ask(
        self,
        address: str,
        body: bytes | None = None,
        media_type: str = "application/octet-stream",
        method: str | None = None,
    ) -> tuple[bytes, str]:
        """Return the body of an answer and its Link; raises the error that its problem details name."""
        headers = {} if body is None else {"Content-Type": media_type}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = Request(self._url + address, body, headers, method=method)
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as answer:
                return answer.read(), answer.headers.get("Link", "")
        except HTTPError as refusal:
            raise _error_of(refusal) from None
        except (URLError, TimeoutError) as failure:
            reason = getattr(failure, "reason", failure)
            raise BusyError(f"no server answers at {self._url}: {reason}; is unitscope serve running?") from None


def _read(content: bytes) -> pa.Table:
    table = pa.ipc.open_file(content).read_all()
    return table.drop_columns([name for name in _ADDRESSES if name in table.column_names])


def _fields(question: Question) -> dict[str, Any]:
    """Return the fields of a question that are not as by default, as JSON and addresses write them."""
    return question.model_dump(mode="json", exclude_defaults=True)


def _address(path: str, question: Question | None = None) -> str:
    fields = {} if question is None else _fields(question)
    return f"{_API}/{path}?{urlencode(fields, doseq=True)}" if fields else f"{_API}/{path}"


def _error_of(refusal: HTTPError) -> UnitscopeError:
    """Return the error of the tree with the answer's status, in the server's words."""
    try:
        detail = str(json.loads(refusal.read())["detail"])
    except (ValueError, KeyError, TypeError):
        return UnitscopeError(f"{refusal.url} answered {refusal.code} {refusal.reason}: is it a unitscope server?")
    return _ERRORS.get(refusal.code, UnitscopeError)(detail)
