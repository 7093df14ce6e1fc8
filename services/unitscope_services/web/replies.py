"""A reply decides how an answer goes out: in which format, with which ETag and lifetime; 304 before any query."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request
from starlette.responses import Response

from unitscope_schemas.errors import UsageError
from unitscope_schemas.formats import FORMATS, MEDIA_TYPES, TableFormat, json_bytes, rows_as
from unitscope_schemas.question import SAFE
from unitscope_services.queries.session import Session
from unitscope_services.server import caching
from unitscope_services.server.access.readers import Reader, Scope
from unitscope_services.server.limits.costs import Kind
from unitscope_services.server.links import dated
from unitscope_services.server.navigation import navigation_of
from unitscope_services.web.app_state import AppState, state_of
from unitscope_services.web.credentials import credentials_of
from unitscope_services.web.parameters import check_parameters
from unitscope_services.web.rate_middleware import ACCOUNT


class RowPage(Protocol):
    """A page with rows and, if there are more, the cursor to the next."""

    @property
    def rows(self) -> Sequence[object]:
        """Return the rows of the page."""


@dataclass(frozen=True)
class Reply:
    """The reply to one request, about one atlas unless `atlas` is empty.

    `scope` is what the question needs: shared caches store only what anyone may read. `private` answers are stored by
    nobody. `state` tells what decides the answer besides the atlas's version. `cost` is the kind of turn that making
    the answer waits for; what the client or the server still has needs none.
    """

    request: Request
    app_state: AppState
    atlas: str = ""
    scope: Scope = "read"
    private: bool = False
    state: str = ""
    cost: Kind = "read"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200

    @cached_property
    def session(self) -> Session:
        """Return the atlas in its newest version, one and the same during the whole request."""
        return self.app_state.atlases.newest(self.atlas)

    @cached_property
    def version(self) -> str:
        """Return what the answer is decided by, besides the address."""
        if self.atlas:
            return dated(_shown_version(self.session), self.state)
        atlases = self.app_state.atlases
        return " ".join(_shown_version(atlases.newest(name)) for name in atlases.names)

    @property
    def reader(self) -> Reader:
        """Return who asks."""
        reader: Reader = self.request.scope["unitscope.reader"]
        return reader

    @property
    def computes(self) -> bool:
        """Return whether the one who asks may run the model, so that a page offers what does."""
        return self.reader.may("compute")

    def demand(self, scope: Scope) -> None:
        """Raise AccessError or ScopeError unless the request's key allows this scope too."""
        reader = self.app_state.keys.reader(credentials_of(self.request))
        self.request.scope["unitscope.reader"] = reader  # pages of problems say who it is, too
        reader.demand(scope)

    def document(self, make: Callable[[], object]) -> Response:
        """Return one JSON document; raises UsageError where the request wants rows."""
        if self._format() != "json":
            raise UsageError("this is one document, not rows: it comes as .json only")
        return self._send("json", MEDIA_TYPES["json"], lambda: json_bytes(make()))

    def rows(self, kind: type, make: Callable[[], Any]) -> Response:
        """Return a page of rows: as JSON the page itself, in all other formats its rows; a Link leads to the next.

        A CSV with `safe=1` is for spreadsheets: no text in it is taken for a formula.
        """
        file_format = self._format()
        safe = self.request.query_params.get(SAFE, "0")
        if safe not in ("0", "1"):
            raise UsageError(f"safe={safe!r} is neither 0 nor 1")
        links: dict[str, str] = {}

        def content() -> bytes:
            page = make()
            if following := getattr(page, "next", None):
                address = self.request.url.include_query_params(cursor=following)
                links["Link"] = f'<{self.request.scope["unitscope.path"]}?{address.query}>; rel="next"'
            return json_bytes(page) if file_format == "json" else rows_as(page.rows, kind, file_format, safe == "1")

        return self._send(file_format, MEDIA_TYPES[file_format], content, links)

    def picture(self, kind: str, media_type: str, make: Callable[[], bytes]) -> Response:
        """Return a picture of the corpus; those sent last are remembered."""
        return self._send(kind, media_type, make, remember=True)

    def stored(self, sha256: str, media_type: str, content: bytes) -> Response:
        """Return a file that stays the same at this address, whatever the atlas's version; its ETag is its digest."""
        etag = f'"{sha256[:32]}"'
        visibility = "public" if self.app_state.keys.allows_anyone(self.scope) else "private"
        vary = "Authorization, Cookie" if self.app_state.keys.are_used else "Authorization"
        headers = {"Vary": vary, "ETag": etag, "Cache-Control": f"{visibility}, {caching.FOR_GOOD}"}
        if caching.is_known(self.request, etag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    def page(self, template: str, make: Callable[[], Mapping[str, object]]) -> Response:
        """Return a page for people; its ETag also depends on how pages look, and on who is shown as signed in."""
        html = self.app_state.templates.get_template(template)
        origin = str(self.request.base_url).rstrip("/")
        name, is_signed_in = self.reader.name, self.reader.key is not None
        count = len(self.app_state.atlases.names)
        kind = f"html {self.app_state.pages_digest} {origin} {name or ''} {self.computes} {count}"
        bar = navigation_of(self.app_state.atlases, self.atlas)
        around = {"origin": origin, "computes": self.computes, "signed_in": name, "bar": bar}
        if self.app_state.keys.are_used:
            around |= {"takes_keys": True, "came_from": f"{self.request.url.path}?{self.request.url.query}".rstrip("?")}
        return self._send(
            kind, "text/html; charset=utf-8", lambda: html.render({**around, **make()}).encode(), personal=is_signed_in
        )

    def _send(
        self,
        kind: str,
        media_type: str,
        make: Callable[[], bytes],
        late: Mapping[str, str] | None = None,
        personal: bool = False,
        remember: bool = False,
    ) -> Response:
        """Return the answer, or 304 if the client has it; headers in `late` are known only once it is made.

        A `personal` answer says who asks, so that no shared cache may keep it.
        """
        keys = self.app_state.keys
        vary = "Accept, Authorization, Cookie" if keys.are_used else "Accept, Authorization"
        headers = {**self.headers, "Vary": vary, "Cache-Control": caching.PRIVATE}
        if not self.private:
            etag = caching.etag_of(self.request, self.version, kind)
            headers["ETag"] = etag
            shared = keys.allows_anyone(self.scope) and not personal
            headers["Cache-Control"] = caching.lifetime(self.request, self.version, shared)
            if caching.is_known(self.request, etag):
                return Response(status_code=304, headers=headers)
        content = self._remembered(headers["ETag"], make) if remember and not self.private else self._made(make)
        return Response(content, self.status, {**headers, **(late or {})}, media_type)

    def _remembered(self, etag: str, make: Callable[[], bytes]) -> bytes:
        """Return the content of an ETag, made now unless it was lately, also by whoever had the turn before."""
        memory = self.app_state.picture_memory
        if (content := memory.find(etag)) is not None:
            return content

        def made_once() -> bytes:
            content = memory.find(etag) or make()
            memory.keep(etag, content)
            return content

        return self._made(made_once)

    def _made(self, make: Callable[[], bytes]) -> bytes:
        """Return what is made in a turn of its kind."""
        # what has to be fetched from a store first lets others pass
        slow = self.cost == "quick" and not self.session.atlas.is_here
        with self.turn("read" if slow else self.cost):
            return make()

    def turn(self, cost: Kind) -> AbstractContextManager[None]:
        """Return a turn of a kind, on the account of who asks; raises OverloadError, BusyError."""
        return self.app_state.turns.of(cost, self.request.scope.get(ACCOUNT))

    def _format(self) -> TableFormat:
        """Return the suffix of the address, or else the first known media type that is accepted."""
        suffix = self.request.scope.get("unitscope.suffix")
        for file_format in FORMATS:
            if file_format == suffix:
                return file_format
        accepted = self.request.headers.get("accept", "")
        for part in accepted.split(","):
            for file_format, media_type in MEDIA_TYPES.items():
                if part.split(";")[0].strip().lower() == media_type.split(";")[0]:
                    return file_format
        return "json"


def _shown_version(session: Session) -> str:
    """Return an atlas's version, another word where its pictures are not shown: those may be allowed tomorrow."""
    return dated(session.atlas.version, "hidden" if session.atlas.hidden_roots else "")


def reply_about(scope: Scope, cost: Kind = "read") -> Any:
    """Return a dependency that checks the key and the parameters' names, then gives the reply about the address's
    atlas."""

    async def reply(request: Request, atlas: str) -> Reply:
        return await _reply(request, scope, atlas, cost)

    return reply


async def _reply(request: Request, scope: Scope, atlas: str, cost: Kind = "read") -> Reply:
    reply = Reply(request, state_of(request), atlas, scope, cost=cost)
    reply.demand(scope)
    await check_parameters(request)
    return reply


async def _general(request: Request) -> Reply:
    return await _reply(request, "read", "")


async def _computing(request: Request) -> Reply:
    return await _reply(request, "compute", "")


Reading = Annotated[Reply, Depends(reply_about("read"))]
QuickReading = Annotated[Reply, Depends(reply_about("read", "quick"))]
Scanning = Annotated[Reply, Depends(reply_about("read", "scan"))]
Picturing = Annotated[Reply, Depends(reply_about("read", "picture"))]
Decomposing = Annotated[Reply, Depends(reply_about("read", "eigen"))]
Weighing = Annotated[Reply, Depends(reply_about("read", "weights"))]
Faceting = Annotated[Reply, Depends(reply_about("read", "facets"))]
Computing = Annotated[Reply, Depends(reply_about("compute", "compute"))]
General = Annotated[Reply, Depends(_general)]
Annotating = Annotated[Reply, Depends(reply_about("annotate"))]
ComputingAnywhere = Annotated[Reply, Depends(_computing)]
