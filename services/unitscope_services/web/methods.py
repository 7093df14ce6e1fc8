"""The methods of an address: what OPTIONS answers, and what a request by another method is told."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from unitscope_services.server.problems import problem_of


def other_method(request: Request, error: HTTPException) -> Response:
    """Return the answer to a method that the found route does not have: all that this address has, of any route."""
    allowed = {"Allow": ", ".join(_methods(request))}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={**allowed, "Cache-Control": "no-store"})
    return problem_of(request, HTTPException(error.status_code, headers=allowed))


def _methods(request: Request) -> list[str]:
    found = {"OPTIONS"}
    for route in request.app.state.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= set(route.methods or ())
    return sorted(found | {"HEAD"} if "GET" in found else found)
