"""Rates at the door: each key or address may send so many requests, and so many unknown keys."""

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from unitscope_schemas.errors import OverloadError
from unitscope_services.server.access import Keys
from unitscope_services.server.limits.rates import Rates, account_at
from unitscope_services.server.problems import problem_of

ACCOUNT = "unitscope.account"
"""Name in the scope of whose account a request is on: a key by its name, or else the address."""
_FREE_PATHS = frozenset(("/livez", "/readyz"))
"""Paths that are asked whether the server is well: always answered, also to who asked too much."""


class RateMiddleware:
    """A layer that notes on whose account a request is, and refuses with a time to wait what is too much, and guesses
    at keys.

    Addresses are those of connections: behind a proxy all readers without keys are one.
    """

    def __init__(self, app: ASGIApp, rates: Rates, keys: Keys) -> None:
        self.app, self._rates, self._keys = app, rates, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in _FREE_PATHS:
            await self.app(scope, receive, send)
            return
        address = account_at(scope["client"][0] if scope.get("client") else "")
        authorization = HTTPConnection(scope).headers.get("authorization")
        try:
            if authorization is not None:
                self._rates.present_key(address)
            name = self._keys.name_of(authorization)
            scope[ACCOUNT] = address if name is None else f"key {name}"
            self._rates.ask(scope[ACCOUNT])
        except OverloadError as error:
            if scope["type"] == "http":
                raise
            socket = WebSocket(scope, receive, send)
            await socket.send_denial_response(problem_of(socket, error))
            return

        async def watched(message: Message) -> None:
            if authorization is not None and message.get("status") == 401:
                self._rates.refuse_key(address)
            await send(message)

        await self.app(scope, receive, watched)
