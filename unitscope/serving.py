"""Start the server: closed by default, one process, a clean stop."""

import ipaddress
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from services.server.settings import Settings

_MESSAGES_WAITING = 2
"""Of each WebSocket: what is asked and its picture, up to the limit of uploads."""


def serve_atlases(settings: "Settings", host: str, port: int, first_pages: Sequence[str] = ()) -> None:
    """Serve until interrupted, and say where, and which pages to look at first.

    Raises UsageError for an open address without keys and for a port in use.
    """
    import uvicorn

    from services.web.app import create_app

    if not is_loopback(host) and settings.key_file is None and not settings.anonymous_read:
        raise UsageError(
            f"refusing to listen on {host} without keys: anyone there could read the atlases; "
            "give --key-file, or --anonymous-read if that is meant"
        )
    app = create_app(settings)
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    root = f"http://{shown}:{listener.getsockname()[1]}"
    sys.stderr.write(f"serving on {root}/  (Ctrl-C stops)\n")
    sys.stderr.writelines(f"  {root}{page}\n" for page in first_pages)
    sys.stderr.flush()
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws_max_size=settings.upload_bytes,
        ws_max_queue=_MESSAGES_WAITING,
        ws_per_message_deflate=False,  # deflating frames and maps would take longer than to send them
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}; choose another --port") from None
