"""The application: API and pages over some atlases, put together here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from unitscope_schemas.answers.served import Problem
from unitscope_schemas.errors import AccessError, UnitscopeError
from unitscope_services.server.access.hosts import Hosts
from unitscope_services.server.access.keys import Keys
from unitscope_services.server.caching import package_version
from unitscope_services.server.jobs import Jobs
from unitscope_services.server.limits.admission import Admission
from unitscope_services.server.limits.costs import FORWARD_WAIT_S, Turns, costs_of
from unitscope_services.server.limits.memory import MemoryFloor
from unitscope_services.server.limits.rates import Rates
from unitscope_services.server.limits.sockets import Sockets
from unitscope_services.server.problems import problem_of
from unitscope_services.server.settings import Settings
from unitscope_services.server.shared import Shared
from unitscope_services.server.telemetry import Telemetry
from unitscope_services.web import assets
from unitscope_services.web.app_state import AppState, state_of
from unitscope_services.web.credentials import credentials_of
from unitscope_services.web.documentation import describe
from unitscope_services.web.methods import other_method
from unitscope_services.web.middleware import RequestMiddleware
from unitscope_services.web.page_routes import annotations as annotation_pages
from unitscope_services.web.page_routes import compare, pages, sign_in, unit_parts
from unitscope_services.web.page_routes import jobs as job_pages
from unitscope_services.web.page_routes import live as live_pages
from unitscope_services.web.picture_memory import PictureMemory
from unitscope_services.web.rate_middleware import RateMiddleware
from unitscope_services.web.routes import (
    annotations,
    atlases,
    conv_filters,
    images,
    jobs,
    live,
    pictures,
    relations,
    server,
    units,
    uploads,
    visuals,
)

__all__ = ["Settings", "create_app"]

_API_GROUPS = (pictures, atlases, conv_filters, units, visuals, images, uploads, annotations, jobs, relations, server)
_PAGE_GROUPS = (pages, annotation_pages, job_pages, compare, live_pages, unit_parts, sign_in)
_FORM_OVERHEAD_BYTES = 4096
"""Bytes that a multipart form adds to the picture inside it."""
_FREE_THREADS = 4
"""Threads besides those of questions that have or wait for a turn: they find out who asks for what, answer what is
remembered and refuse what is too much. So all questions that may wait never keep these waiting."""
_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The request cannot be answered; the detail says why"},
    "5XX": {"model": Problem, "description": "The server failed, or is at its limit"},
}


def create_app(settings: Settings, shared: Shared | None = None) -> FastAPI:
    """Return API and pages over the atlases of `settings`, which are opened when the server starts.

    `shared`: what this process has in common with others, if there are any. Raises UsageError for an unusable key file;
    an atlas that cannot be opened stops the start.
    """
    app_state = _build_state(settings, shared or Shared.alone(settings))
    app = FastAPI(
        title="unitscope",
        version=package_version(),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.app_state = app_state
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    for kind in (UnitscopeError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _handle)
    for group in _API_GROUPS:
        app.include_router(group.routes, responses=_ERRORS)
    app.include_router(live.routes)
    for group in _PAGE_GROUPS:
        app.include_router(group.routes, include_in_schema=False)
    app.state.routes = [route for group in (*_API_GROUPS, *_PAGE_GROUPS) for route in group.routes.routes]
    app.add_middleware(RateMiddleware, rates=app_state.rates, keys=app_state.keys)
    app.add_middleware(
        RequestMiddleware,
        telemetry=app_state.telemetry,
        hosts=Hosts(settings.allowed_hosts),
        body_limit_bytes=settings.upload_bytes + _FORM_OVERHEAD_BYTES,
    )
    _build_routes(app)
    return app


def _build_routes(app: FastAPI) -> None:
    """Have the routes built now, a tenth of a second's work that FastAPI leaves to the first request."""
    nowhere = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": [], "path_params": {}}
    for route in app.router.routes:
        route.matches(nowhere)


def _build_state(settings: Settings, shared: Shared) -> AppState:
    static, telemetry, rates = assets.read_static(), Telemetry(), Rates(settings)
    return AppState(
        settings=settings,
        keys=Keys(settings.key_file, settings.anonymous_read),
        templates=assets.make_templates(static),
        pages_digest=assets.pages_digest(),
        static=static,
        telemetry=telemetry,
        admission=Admission(1, settings.forwards_waiting, telemetry.forwards.set, FORWARD_WAIT_S),
        uploads=shared.uploads,
        job_registry=shared.job_registry,
        jobs=Jobs(shared.job_registry, settings.jobs_running),
        turns=Turns(costs_of(settings), MemoryFloor(settings.memory_floor_bytes), rates),
        rates=rates,
        live=Sockets(settings),
        picture_memory=PictureMemory(),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app_state: AppState = app.state.app_state
    threads = anyio.to_thread.current_default_thread_limiter()
    threads.total_tokens = _FREE_THREADS + app_state.turns.most_present + app_state.settings.live_at_once
    if not app_state.is_open:
        await asyncio.to_thread(app_state.open)
    yield
    app_state.close()


async def _handle(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return other_method(request, error)
    if "unitscope.reader" not in request.scope:  # an address that is none asks for no key
        with suppress(AccessError):
            request.scope["unitscope.reader"] = state_of(request).keys.reader(credentials_of(request))
    return problem_of(request, error)
