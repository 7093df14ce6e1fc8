"""The pages on which a browser signs in with a key, and out again."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from unitscope_schemas.errors import AccessError, NotFoundError
from unitscope_services.server.problems import sign_in_page
from unitscope_services.web import credentials
from unitscope_services.web.app_state import state_of

routes = APIRouter()

_NO_STORE = {"Cache-Control": "no-store"}
Target = Annotated[str, Query(max_length=4000, description="address on this server to go to then")]


@routes.get("/sign-in")
def show_sign_in(request: Request, to: Target = "/", again: bool = False) -> Response:
    """Show the form that takes a key, to a reader who is signed in only `again`."""
    _check_keys(request)
    reader = state_of(request).keys.reader(credentials.credentials_of(request))
    request.scope["unitscope.reader"] = reader
    if reader.key is not None and not again:
        return RedirectResponse(_local(to), 303, headers=_NO_STORE)
    return sign_in_page(request, _local(to), status=200, headers=dict(_NO_STORE))


@routes.post("/sign-in")
def sign_in(
    request: Request,
    key: Annotated[str, Form(max_length=1000)],
    to: Annotated[str, Form(max_length=4000)] = "/",
) -> Response:
    """Take a key, and lead to where its reader wanted to go."""
    _check_keys(request)
    if state_of(request).keys.find(key.strip()) is None:
        request.scope["unitscope.to"] = _local(to)
        raise AccessError("the key is not known to this server")
    answer = RedirectResponse(_local(to), 303, headers=_NO_STORE)
    credentials.sign_in(request, answer, key.strip())
    return answer


@routes.post("/sign-out")
def sign_out(request: Request) -> Response:
    """Have the browser forget its key, and lead to the first page."""
    answer = RedirectResponse("/", 303, headers=_NO_STORE)
    credentials.sign_out(request, answer)
    return answer


def _check_keys(request: Request) -> None:
    if not state_of(request).keys.are_used:
        raise NotFoundError("this server asks for no keys: there is nothing to sign in to")


def _local(to: str) -> str:
    """Return an address if it is a page of this server, else the first page: nobody is led elsewhere."""
    is_here = to.startswith("/") and not to.startswith(("//", "/sign-")) and to.isprintable() and "\\" not in to
    return to if is_here else "/"
