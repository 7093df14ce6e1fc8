"""Errors as problem details (RFC 9457), and as a page for people: without stack traces or file-system paths."""

import logging
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from unitscope_schemas.addresses import without_paths
from unitscope_schemas.answers.served import Problem
from unitscope_schemas.errors import (
    AccessError,
    AtlasError,
    BusyError,
    FormatError,
    ScopeError,
    StorageError,
    UnitscopeError,
)
from unitscope_schemas.formats import json_bytes
from unitscope_schemas.question import faults
from unitscope_services.server.navigation import navigation_of

MEDIA_TYPE = "application/problem+json"

_MOST_CHARACTERS = 2_000
"""Most characters of a detail: a name that is asked for may be as long as a request, and is said again in it."""

_log = logging.getLogger("unitscope")

_PUBLIC = {
    FormatError: "the atlas was written in another format version; the server's log says which",
    AtlasError: "a part of the atlas is missing or damaged; the server's log names it, unitscope verify finds it",
    StorageError: "the server cannot write; its log says why",
}
"""What is told where the message itself is meant for whoever runs the server."""
_UNEXPECTED = "the server failed; its log has the reason under this request id"


def problem_of(request: HTTPConnection, error: Exception) -> Response:
    """Return the answer to a request that failed; what is the server's own fault is logged."""
    problem, headers = described(request, error)
    headers |= {"Cache-Control": "no-store"}
    if not _wants_page(request):
        return Response(json_bytes(problem), problem.status, headers, MEDIA_TYPE)
    if problem.status == HTTPStatus.UNAUTHORIZED and request.app.state.app_state.keys.are_used:
        elsewhere = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return sign_in_page(request, _address(request), problem.status, headers, elsewhere)
    return _page(request, "problem.html", problem.status, headers, problem=problem, came_from=_address(request))


def sign_in_page(
    request: HTTPConnection, to: str, status: int, headers: dict[str, str], elsewhere: bool = False
) -> Response:
    """Return the page with a form that takes a key and then leads to another; it says what was wrong with the last.

    `elsewhere`: the reader follows a link of another site, so that the browser held the cookie back: the page has it
    ask once more, for the form itself, by itself.
    """
    wrong = "This key is not known here." if "unitscope.to" in request.scope else None
    return _page(
        request,
        "sign_in.html",
        status,
        headers,
        to=to,
        wrong=wrong,
        elsewhere=elsewhere,
        takes_keys=False,
        scripts=False,
    )


def _page(request: HTTPConnection, template: str, status: int, headers: dict[str, str], **content: object) -> Response:
    app_state, reader = request.app.state.app_state, request.scope.get("unitscope.reader")
    around = {"signed_in": reader.name if reader else None, "takes_keys": app_state.keys.are_used}
    if reader is not None and reader.may("read") and app_state.is_open:  # others are told of no atlas
        bar = navigation_of(app_state.atlases, request.path_params.get("atlas", ""))
        around |= {"bar": bar, "computes": reader.may("compute")}
    html = app_state.templates.get_template(template).render({**around, **content})
    return Response(html, status, headers, "text/html; charset=utf-8")


def _address(request: HTTPConnection) -> str:
    """Return where a reader who has signed in wants to go: to the page that was asked for, if it was only read."""
    if request.scope.get("method", "GET") != "GET":
        return str(request.scope.get("unitscope.to", "/"))
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


def described(request: HTTPConnection, error: Exception) -> tuple[Problem, dict[str, str]]:
    """Return what went wrong, and the headers that tell programs what would do; the server's own fault is logged."""
    status, title, detail, headers = _read(request, error)
    problem = Problem(
        title=title,
        status=status,
        detail=detail if len(detail) <= _MOST_CHARACTERS else f"{detail[:_MOST_CHARACTERS]} …",
        instance=request.scope.get("unitscope.path", request.scope["path"]),
        request_id=request.scope.get("unitscope.request_id", ""),
    )
    return problem, headers


def _read(request: HTTPConnection, error: Exception) -> tuple[int, str, str, dict[str, str]]:
    if isinstance(error, UnitscopeError):
        return _read_own(request, error)
    if isinstance(error, RequestValidationError):
        return 400, "Bad request", faults(error.errors(), leave_out=1), {}
    if isinstance(error, HTTPException):
        title = HTTPStatus(error.status_code).phrase
        return error.status_code, title, _routing_detail(request, error), dict(error.headers or {})
    _log.error("request %s failed", request.scope.get("unitscope.request_id"), exc_info=error)
    return 500, HTTPStatus(500).phrase, _UNEXPECTED, {}


def _read_own(request: HTTPConnection, error: UnitscopeError) -> tuple[int, str, str, dict[str, str]]:
    headers = {}
    if isinstance(error, ScopeError):
        headers["WWW-Authenticate"] = 'Bearer realm="unitscope", error="insufficient_scope"'
    elif isinstance(error, AccessError):
        headers["WWW-Authenticate"] = 'Bearer realm="unitscope"'
    elif isinstance(error, BusyError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.http_status >= 500 and not isinstance(error, BusyError):
        _log.error("request %s: %s", request.scope.get("unitscope.request_id"), error)
        detail = next((text for kind, text in _PUBLIC.items() if isinstance(error, kind)), _UNEXPECTED)
    else:
        detail = without_paths(str(error))
    return error.http_status, error.title, detail, headers


def _routing_detail(request: HTTPConnection, error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this address; /docs lists what there is"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return f"{request.scope['method']} is not possible here; possible is {allowed}"
    return without_paths(str(error.detail))


def _wants_page(request: HTTPConnection) -> bool:
    """Return whether a page is wanted: browsers on pages get one; programs, and all of the API, problem details."""
    path = str(request.scope["path"])
    return not path.startswith("/api/") and "text/html" in request.headers.get("accept", "")
