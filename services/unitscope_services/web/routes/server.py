"""The routes of the server itself: whether it lives, what it is, how it fares."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from unitscope_schemas.answers.served import Health, Version
from unitscope_schemas.errors import BusyError, NotFoundError, listing
from unitscope_schemas.formats import MEDIA_TYPES, json_bytes
from unitscope_schemas.manifest import FORMAT_VERSION
from unitscope_services.server import caching
from unitscope_services.web.app_state import state_of
from unitscope_services.web.credentials import credentials_of
from unitscope_services.web.documentation import describe
from unitscope_services.web.replies import General

routes = APIRouter(tags=["server"])


@routes.get("/livez", response_model=Health)
async def tell_life() -> Response:
    """Answer as long as the process lives."""
    return _json(Health(status="alive"))


@routes.get("/readyz", response_model=Health)
async def tell_readiness(request: Request) -> Response:
    """Answer 200 once all atlases are open, and 503 until then."""
    if not state_of(request).is_open:
        raise BusyError("the atlases are still being opened")
    return _json(Health(status="ready"))


@routes.get("/openapi.json", include_in_schema=False)
def read_description(reply: General) -> Response:
    """Return the description of the API, for programs."""
    return reply.document(lambda: describe(reply.request.app))


@routes.get("/version", response_model=Version)
async def read_version(reply: General) -> Response:
    """Return the versions of the package, the API and the stored format."""
    return _json(Version(version=caching.package_version(), api="v1", format_version=FORMAT_VERSION))


@routes.get("/metrics", response_class=Response)
def read_metrics(request: Request) -> Response:
    """Return figures for Prometheus; with keys, for those with the scope admin."""
    app_state = state_of(request)
    app_state.keys.reader(credentials_of(request)).demand("admin")
    telemetry = app_state.telemetry
    telemetry.uploads.set(app_state.uploads.total_bytes())
    telemetry.atlases.set(len(app_state.atlases.names) if app_state.is_open else 0)
    return Response(telemetry.text(), headers={"Cache-Control": "no-store"}, media_type=telemetry.media_type)


@routes.get("/static/{name}", include_in_schema=False)
async def read_static(request: Request, name: str) -> Response:
    """Return a file that pages need."""
    static = state_of(request).static
    if name not in static:
        raise NotFoundError(f"no static file {name!r}; there are {listing(static)}")
    file = static[name]
    etag = f'"{file.digest}"'
    headers = {"ETag": etag, "Cache-Control": caching.lifetime(request, file.digest, shared=True)}
    if caching.is_known(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


def _json(content: Health | Version) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(json_bytes(content), headers=headers, media_type=MEDIA_TYPES["json"])
