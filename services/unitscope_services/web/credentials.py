"""What a request brings to say who asks, and the cookie of browsers that are signed in.

The cookie holds the key itself: whoever knows the hashes in the key file cannot make one, every process and replica
knows it without a word between them, and it is worth nothing once the key is removed. It ends with the browser's
session; pages cannot read it, other sites cannot have it sent, and it takes no unencrypted way where it came by TLS.
"""

from urllib.parse import quote, unquote, urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from unitscope_services.server.access.readers import Credentials


def credentials_of(connection: HTTPConnection) -> Credentials:
    """Return the header and the cookie of a request or a WebSocket."""
    cookie = connection.cookies.get(_cookie_name(connection))
    return Credentials(connection.headers.get("authorization"), unquote(cookie) if cookie else None)


def sign_in(request: Request, answer: Response, token: str) -> None:
    """Have the browser bring a key with each request to this server."""
    answer.set_cookie(
        _cookie_name(request), quote(token, safe=""), secure=_is_encrypted(request), httponly=True, samesite="strict"
    )


def sign_out(request: Request, answer: Response) -> None:
    """Have the browser forget the key."""
    answer.delete_cookie(_cookie_name(request), secure=_is_encrypted(request), httponly=True, samesite="strict")


def _cookie_name(connection: HTTPConnection) -> str:
    """Return the cookie's name with the port, for cookies of all ports of a host are one jar."""
    port = connection.headers.get("host", "").rpartition(":")[2]
    return f"unitscope-{port}" if port.isdecimal() else "unitscope"


def _is_encrypted(request: Request) -> bool:
    """Return whether the browser came by TLS: behind a proxy only the page's own address tells."""
    return "https" in (request.url.scheme, urlsplit(request.headers.get("origin", "")).scheme)
