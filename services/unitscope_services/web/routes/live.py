"""The route of live frames over a WebSocket: one picture after the other, each answered before the next is read."""

import asyncio
import json
from typing import Any

from fastapi import APIRouter, WebSocket
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect

from unitscope_pipelines.vision.images.pictures import open_picture
from unitscope_schemas.answers.live import LiveAsk, LiveProblem
from unitscope_schemas.errors import BusyError, OverloadError, TooLargeError, UnitscopeError, UsageError
from unitscope_schemas.formats import json_bytes
from unitscope_schemas.question import check_names, faults
from unitscope_services.queries.live import Answered, Stages, answer, frame_of
from unitscope_services.server.problems import described, problem_of
from unitscope_services.server.uploads import FORMATS
from unitscope_services.web.app_state import AppState
from unitscope_services.web.credentials import credentials_of
from unitscope_services.web.rate_middleware import ACCOUNT
from unitscope_services.web.routes import API

routes = APIRouter(prefix=f"{API}/atlases/{{atlas}}")

IDLE, TRY_AGAIN = 1000, 1013
"""Close codes of RFC 6455, section 7.4.1 and its registry."""


@routes.websocket("/live")
async def answer_frames(socket: WebSocket, atlas: str) -> None:
    """Read frames and send their answers, in turn, until either side closes."""
    app_state: AppState = socket.app.state.app_state
    try:
        app_state.keys.reader(credentials_of(socket)).demand("compute")
        app_state.atlases.newest(atlas)
    except UnitscopeError as error:
        await socket.send_denial_response(problem_of(socket, error))
        return
    await socket.accept()
    try:
        with app_state.live.place(socket.scope[ACCOUNT]):
            await _Conversation(socket, app_state, atlas).hold()
    except OverloadError as error:
        await socket.close(TRY_AGAIN, str(error))
    except WebSocketDisconnect:
        pass


class _Conversation:
    """A conversation is one socket and its last question; a frame is forgotten once it is answered."""

    def __init__(self, socket: WebSocket, app_state: AppState, atlas: str) -> None:
        self._socket, self._app_state, self._atlas = socket, app_state, atlas
        self._question: LiveAsk | None = None

    async def hold(self) -> None:
        """Answer until the other side closes or sends nothing for a while."""
        idle_s = self._app_state.settings.live_idle_s
        while True:
            try:
                message = await asyncio.wait_for(self._socket.receive(), idle_s)
            except TimeoutError:
                await self._socket.close(IDLE, f"nothing was asked for {idle_s:g} s; connect again to go on")
                return
            if message["type"] == "websocket.disconnect":
                return
            try:
                await self._hear(message)
            except WebSocketDisconnect:
                raise
            except Exception as error:  # noqa: BLE001  (told and logged by `described`, as of requests)
                await self._complain(error)

    async def _hear(self, message: Any) -> None:
        """Read a question, about an image of the corpus or about the picture that follows, while the key is known."""
        self._app_state.keys.reader(credentials_of(self._socket)).demand("compute")
        text, data = message.get("text"), message.get("bytes")
        if text is not None:
            self._question = None
            self._question = _parsed(text)
            if self._question.image is None:
                return
        if self._question is None:
            raise UsageError("say what is asked about a picture before it is sent")
        self._app_state.rates.ask(self._socket.scope[ACCOUNT])
        answered = await run_in_threadpool(self._answer, self._question, data)
        self._question = None
        await self._socket.send_text(json_bytes(answered.head).decode())
        for name in answered.head.parts:
            await self._socket.send_bytes(answered.parts[name])

    def _answer(self, ask: LiveAsk, data: bytes | None) -> Answered:
        session, stages = self._app_state.atlases.newest(self._atlas), Stages()
        turns, rates, account = self._app_state.turns, self._app_state.rates, self._socket.scope[ACCOUNT]
        rates.begin_work(account)
        with self._app_state.telemetry.live_seconds.time(), rates.working(account):
            with stages.of("prepare"), turns.of("picture"):
                if data is not None:
                    self._check(data)
                frame = frame_of(session, ask, data)
            return answer(session, ask, frame, stages)

    def _check(self, data: bytes) -> None:
        settings = self._app_state.settings
        if len(data) > settings.upload_bytes:
            raise TooLargeError(f"{len(data):,} bytes are more than the limit of {settings.upload_bytes:,}")
        open_picture(data, FORMATS, settings.upload_pixels)

    async def _complain(self, error: Exception) -> None:
        problem, _ = described(self._socket, error)
        retry_after_s = error.retry_after_s if isinstance(error, BusyError) else None
        question, self._question = self._question, None
        told = LiveProblem(id=question.id if question else None, problem=problem, retry_after_s=retry_after_s)
        await self._socket.send_text(json_bytes(told).decode())


def _parsed(text: str) -> LiveAsk:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError('the question is not JSON; send for example {"unit": "LAYER:UNIT"}') from None
    if not isinstance(given, dict):
        raise UsageError('the question is no JSON object; send for example {"unit": "LAYER:UNIT"}')
    check_names(given, LiveAsk.model_fields)
    try:
        return LiveAsk.model_validate(given)
    except ValidationError as error:
        raise UsageError(faults(error.errors())) from None
