"""A running server in a notebook: the questions of `Notebook` over HTTP, every answer an Arrow table."""

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.compute as pc

from unitscope_schemas.answers.patches import Order
from unitscope_schemas.answers.relations import Likeness
from unitscope_schemas.errors import (
    AccessError,
    BusyError,
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
from unitscope_schemas.units import Target, UnitId, parse_target

_API = "/api/v1"
_ID = re.compile(r"[0-9a-f]{6,64}")
"""An image id or its first digits; all else is a path in the corpus."""
_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.5
"""At a job."""
_MOST_ROWS = 1000
"""On one page of the server; longer tables are fetched page by page."""
_ERRORS = {
    kind.http_status: kind
    for kind in (
        *(UsageError, PictureError, TooLargeError, AccessError, ScopeError),
        *(NotFoundError, ModelError, BusyError, OverloadError),
    )
}


class Client:
    """Questions to one atlas of a server, with the methods and the tables of `unitscope.open_atlas`.

    `url` is the server's address; where it serves several atlases, `atlas` names one. A server that asks for keys
    needs `key`. What the server refuses is raised as the error that `open_atlas` would raise, with its words.
    """

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

    def layers(self) -> pa.Table:
        """One row per recorded layer."""
        return self._table(f"{self._atlas}/layers")

    def units(self, layer: str, sort: str = "channel") -> pa.Table:
        """One row of statistics per unit of a layer."""
        return self._whole_table(f"{self._atlas}/layers/{quote(layer, safe='@')}/units", sort=sort)

    def top(self, unit: str, k: int = 9, per_image: int = 1, **query: Any) -> pa.Table:
        """The patches that most excite a unit; further filters as in `schemas.answers.PatchQuery`.

        More than one peak `per_image` are local maxima of its map, which the model computes again.
        """
        band = query.pop("quantile", None)
        duplicates = "expand" if query.pop("expand_duplicates", False) else None
        quantile = None if band is None else f"{band[0]!r}..{band[1]!r}"
        path = f"{self._atlas}/{_of(unit)}/patches"
        several = None if per_image == 1 else per_image
        return self._table(path, k=k, quantile=quantile, duplicates=duplicates, per_image=several, **query)

    def labels(self, unit: str, ranks: int | None = None) -> pa.Table:
        """Labels among a unit's first ranks, as stored or counted over so many, with lift and its interval."""
        return self._table(f"{self._atlas}/{_of(unit)}/labels", ranks=ranks)

    def selectivity(self, unit: str) -> pa.Table:
        """Labels by the chance, over all ranks, that their images excite the unit more than others do."""
        return self._table(f"{self._atlas}/{_of(unit)}/selectivity")

    def selective(self, label: str, layer: str | None = None, k: int = 100) -> pa.Table:
        """The units whose first ranks hold a label most above its share of the corpus."""
        return self._table(f"{self._atlas}/selective", label=label, layer=layer, limit=k)

    def bands(self, unit: str, bands: int = 10, k: int = 3, order: Order = "random", **query: Any) -> pa.Table:
        """Some patches from each of equal bands of the unit's distribution, the highest first."""
        duplicates = "expand" if query.pop("expand_duplicates", False) else None
        path = f"{self._atlas}/{_of(unit)}/bands"
        return self._table(path, bands=bands, k=k, order=order, duplicates=duplicates, **query)

    def facets(self, unit: str) -> pa.Table:
        """The unit's first exemplars in groups that look alike where it peaks."""
        return self._table(f"{self._atlas}/{_of(unit)}/facets")

    def similar(self, unit: str, by: Likeness = "coactivation", among: str | None = None, k: int = 9) -> pa.Table:
        """The units of a layer, its own unless another is named, that are most like a unit.

        By `coactivation` where that was computed for the layers, by `exemplars` or `weights` at once.
        """
        return self._table(f"{self._atlas}/{_of(unit)}/similar", by=by, among=among, k=k)

    def correlate(self, layer: str, among: str | None = None) -> None:
        """Have the co-activation of two layers' units, or of one layer's, computed and stored; once for each version.

        Returns when the server's job has ended. Needs the scope compute.
        """
        self._job("similar", unit=f"{layer}:0", among=among)

    def compare(self, other: str, layer: str | None = None, layer_b: str | None = None) -> pa.Table:
        """Unit by unit the best match in another atlas that the server serves; computed once and stored in this one.

        Returns when the server's job has ended. Needs the scope compute.
        """
        (address,) = self._job("compare", other=other, layer=layer, layer_b=layer_b)
        return self.comparison(address.rpartition("/")[2])

    def comparisons(self) -> pa.Table:
        """The stored comparisons with other atlases."""
        return self._table(f"{self._atlas}/comparisons")

    def comparison(self, identifier: str, layer: str | None = None) -> pa.Table:
        """A stored comparison, unit by unit, of one layer or all."""
        return self._whole_table(f"{self._atlas}/comparisons/{quote(identifier)}", layer=layer)

    def optimise(
        self, unit: str, recipe: str = "olah2017", direction: Sequence[float] | None = None, **how: Any
    ) -> pa.Table:
        """Pictures optimised by a job of the server, once it has ended; asked for as those of an opened atlas.

        What the server has stored already comes at once. Needs the scope compute.
        """
        vector = None if direction is None else list(map(float, direction))
        return self._made(self._job("optimise", units=[unit], recipe=recipe, direction=vector, **how))

    def project(self, unit: str, method: str = "deconvnet", k: int = 9) -> pa.Table:
        """The projections of a unit's first patches, made by a job of the server unless they are stored already."""
        return self._made(self._job("project", units=[unit], method=method, k=k))

    def visualisations(self, unit: str) -> pa.Table:
        """The stored pictures of a unit or direction, each with the activation it reaches beside the corpus."""
        return self._table(f"{self._atlas}/{_place(parse_target(unit))}/visualisations")

    def visualisation(self, unit: str, name: str) -> bytes:
        """The PNG of a stored picture by its id."""
        return self._ask(f"{_API}/{self._atlas}/{_place(parse_target(unit))}/visualisations/{quote(name)}.png")[0]

    def picture(self, url: str) -> bytes:
        """The picture of a row of visualisations, filters or eigen-patches."""
        return self._ask(url)[0]

    def eigen(self, unit: str, k: int = 64, count: int = 9, size: int | None = None) -> pa.Table:
        """One row for the mean (component 0) and each principal component of a unit's patches, aligned at their peaks.

        `size` is the side in input pixels.
        """
        return self._table(f"{self._atlas}/{_of(unit)}/eigen", k=k, components=count, size=size)

    def filters(self, layer: str = "first") -> pa.Table:
        """One row for each filter of a layer of the model; `first` is the first layer with weights."""
        return self._table(f"{self._atlas}/layers/{quote(layer, safe='@')}/filters")

    def explain(self, image: str, layer: str | None = None, k: int = 20, **passing: Any) -> pa.Table:
        """The units that an image excites most unusually, by percentile.

        `label` and `where`, a tuple of conditions, choose among which images, as in `top`.
        """
        return self._table(f"{self._subject(image)}/units", layer=layer, k=k, **passing)

    def neighbors(
        self,
        image: str,
        box: tuple[int, int, int, int] | None = None,
        k: int = 9,
        exact: bool = False,
        **passing: Any,
    ) -> pa.Table:
        """The images with the patch most similar to a box (top, left, bottom, right) of an image.

        `label` and `where`, a tuple of conditions, choose among the images as in `top`.
        """
        text = None if box is None else ",".join(map(str, box))
        return self._table(f"{self._subject(image)}/neighbors", box=text, k=k, exact=exact or None, **passing)

    def __repr__(self) -> str:
        about = self._summary
        held = f"{about['images']} images × {about['units']} units of {about['model']}"
        return f"<atlas {about['name']} at {self._url}: {held}>"

    def _subject(self, image: str) -> str:
        """Where the server answers about an image of the corpus by id or path, or about a picture file sent to it."""
        file = Path(image)
        if file.is_file():
            kept = json.loads(self._ask(f"{_API}/{self._atlas}/uploads", file.read_bytes())[0])
            return f"{self._atlas}/uploads/{kept['id']}"
        if not _ID.fullmatch(image):
            image = self._json(f"{self._atlas}/images", path=image)["rows"][0]["image_id"]
        return f"{self._atlas}/images/{image}"

    def _made(self, results: list[str]) -> pa.Table:
        """The rows of the pictures that a job has stored, in its order; raises NotFoundError if there are none."""
        if not results:
            raise NotFoundError("nothing was made: no unit that was asked for has patches")
        lists = dict.fromkeys(address.removeprefix(f"{_API}/").rpartition("/")[0] for address in results)
        rows = pa.concat_tables(map(self._table, lists))
        return rows.take(pc.index_in(pa.array(results), rows["url"].combine_chunks()))

    def _job(self, kind: str, **query: Any) -> list[str]:
        """Addresses of what a job of the server has stored, once it has ended; raises UnitscopeError if it failed."""
        asked = {"kind": kind, "atlas": self._summary["name"], **query}
        job = json.loads(self._ask(f"{_API}/jobs", json.dumps(asked).encode(), "application/json")[0])
        while job["state"] in ("waiting", "running"):
            time.sleep(_LOOK_EVERY_S)
            job = self._json(f"jobs/{job['id']}")
        if job["state"] != "done":
            raise UnitscopeError(f"the server's job {job['id']} {job['state']}: {job['problem'] or 'by somebody'}")
        results: list[str] = job["results"]
        return results

    def _json(self, path: str, /, **query: Any) -> Any:
        return json.loads(self._ask(_address(path, query))[0])

    def _table(self, path: str, /, **query: Any) -> pa.Table:
        """One page of rows."""
        content, _ = self._ask(_address(f"{path}.arrow", query))
        return pa.ipc.open_stream(content).read_all()

    def _whole_table(self, path: str, /, **query: Any) -> pa.Table:
        """All rows, page by page."""
        parts, address = [], _address(f"{path}.arrow", {**query, "limit": _MOST_ROWS})
        while address:
            content, link = self._ask(address)
            parts.append(pa.ipc.open_stream(content).read_all())
            address = link.partition("<")[2].partition(">")[0]
        return pa.concat_tables(parts)

    def _ask(
        self, address: str, body: bytes | None = None, media_type: str = "application/octet-stream"
    ) -> tuple[bytes, str]:
        """The body of an answer and its Link; raises the error that its problem details name."""
        headers = {} if body is None else {"Content-Type": media_type}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = Request(self._url + address, body, headers)
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as answer:
                return answer.read(), answer.headers.get("Link", "")
        except HTTPError as refusal:
            raise _error_of(refusal) from None
        except (URLError, TimeoutError) as failure:
            reason = getattr(failure, "reason", failure)
            raise BusyError(f"no server answers at {self._url}: {reason}; is unitscope serve running?") from None


def _of(unit: str) -> str:
    return _place(UnitId.parse(unit))


def _place(target: Target) -> str:
    layer, name = target
    kind = "units" if isinstance(target, UnitId) else "directions"
    return f"layers/{quote(layer, safe='@')}/{kind}/{name}"


def _address(path: str, query: dict[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{_API}/{path}?{urlencode(given, doseq=True)}" if given else f"{_API}/{path}"


def _error_of(refusal: HTTPError) -> UnitscopeError:
    """The error of the tree with the answer's status, in the server's words."""
    try:
        detail = str(json.loads(refusal.read())["detail"])
    except (ValueError, KeyError, TypeError):
        return UnitscopeError(f"{refusal.url} answered {refusal.code} {refusal.reason}: is it a unitscope server?")
    return _ERRORS.get(refusal.code, UnitscopeError)(detail)
