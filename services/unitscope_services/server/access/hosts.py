"""A server is asked under its own names, and by its own pages and programs.

A page of another site can have its name resolve to this machine (DNS rebinding); its requests then come from the
reader's browser with that name as their `Host`. A number is no name, so it cannot be such a page's.
"""

import ipaddress
import re
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from unitscope_schemas.errors import UsageError

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(:[0-9]*)?", re.IGNORECASE)
_LOOPBACK = ("localhost", "*.localhost")
_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Hosts:
    """The names under which a server may be asked; numbers and `localhost` are always among them."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Take names such as `atlas.example.org` and `*.example.org`; raises UsageError for what is none."""
        allowed = tuple(name.lower().rstrip(".") for name in names)
        for name in allowed:
            if not _NAME.fullmatch(name) and not _is_number(name):
                raise UsageError(f"host {name!r} is no name: give for example atlas.example.org, or *.example.org")
        self._exact = {name for name in (*_LOOPBACK, *allowed) if not name.startswith("*.")}
        self._endings = tuple(name[1:] for name in (*_LOOPBACK, *allowed) if name.startswith("*."))

    def check(self, headers: Headers, method: str) -> None:
        """Raise HTTPException for a name that is not this server's, and for a page of another site that would act.

        `method`: of a WebSocket the empty text, for it may always act. Programs send no Origin, and are let in.
        """
        hosts = headers.getlist("host")
        if len(hosts) > 1:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the request names several hosts")
        host = hosts[0] if hosts else ""
        if host and not self._allows(host):
            raise HTTPException(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"this server is not asked under the name {host!r}; "
                f"unitscope serve --allowed-host {_name(host) or 'NAME'} lets it in",
            )
        if method not in _SAFE_METHODS:
            _check_origin(headers, host)

    def _allows(self, host: str) -> bool:
        name = _name(host)
        return name in self._exact or name.endswith(self._endings) or _is_number(name)


def _check_origin(headers: Headers, host: str) -> None:
    """Raise HTTPException for what the browser says comes from elsewhere, or from a page that it does not name.

    The scheme of Origin is not compared: behind a proxy that speaks TLS the server does not know its own. Where it
    differs, browsers say so in Sec-Fetch-Site.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none") or (origin is not None and not _is_at(origin, host)):
        raise HTTPException(
            HTTPStatus.FORBIDDEN,
            f"a page of {origin or 'another site'} asked for this; ask from this server's own pages, and have "
            "a proxy pass the header Host on as it is",
        )


def _is_at(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    default = _DEFAULT_PORTS.get(parts.scheme)
    if default is None or parts.path or parts.query:
        return False
    return parts.netloc.lower().removesuffix(default) == host.lower().removesuffix(default)


def _name(host: str) -> str:
    """Return the name or number of a Host header without its port; empty for what is no host."""
    found = _HOST.fullmatch(host)
    return found[1].lower().rstrip(".") if found else ""


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
