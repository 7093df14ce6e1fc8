"""Rates at the door: each key or address may send so many requests, and so many unknown keys."""

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from unitscope_schemas.errors import AccessError, OverloadError
from unitscope_services.server.access.keys import Keys
from unitscope_services.server.access.readers import Credentials
from unitscope_services.server.limits.rates import Rates, account_at
from unitscope_services.server.problems import problem_of
from unitscope_services.web.credentials import credentials_of

ACCOUNT = "unitscope.account"
"""Name in the scope of whose account a request is on: a key by its name, or else the address."""
SIGN_IN = "/sign-in"
"""Path of the form that takes a key. A key in a cookie is no guess that counts: the rate of requests bounds those."""
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
        credentials = credentials_of(HTTPConnection(scope))
        presents_key = credentials.authorization is not None or scope["path"] == SIGN_IN
        try:
            if presents_key:
                self._rates.present_key(address)
            name = self._name(credentials)
            scope[ACCOUNT] = address if name is None else f"key {name}"
            self._rates.ask(scope[ACCOUNT])
        except OverloadError as error:
            if scope["type"] == "http":
                raise
            socket = WebSocket(scope, receive, send)
            await socket.send_denial_response(problem_of(socket, error))
            return

        async def watched(message: Message) -> None:
            if presents_key and message.get("status") == 401:
                self._rates.refuse_key(address)
            await send(message)

        await self.app(scope, receive, watched)

    def _name(self, credentials: Credentials) -> str | None:
        """Return the name of the known key that a request brings, None without one."""
        try:
            return self._keys.reader(credentials).name
        except AccessError:
            return None
