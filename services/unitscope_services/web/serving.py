"""The start of the server: closed by default, in one process or several, with a clean stop."""

import ipaddress
import math
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unitscope_schemas.errors import UnitscopeError, UsageError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from types import FrameType

    from fastapi import FastAPI

    from unitscope_services.server.settings import Settings

_MESSAGES_WAITING = 2
"""Messages that wait for each WebSocket: what is asked and its picture, up to the limit of uploads."""
_CLOSING_S = 2.0
"""Seconds that a server may take to close once its requests have ended or had their time."""
_USUAL_RATE_PER_S = 50.0
"""Requests each second, ten seconds' worth of them at once: five pages of a hundred thumbnails."""
_HEAVY = ("unitscope_pipelines.vision.models.models", "unitscope_services.queries.neighbors")
"""Modules that bring PyTorch and FAISS, which answers from the atlas alone do without."""
_PATIENCE_S = 60
"""Seconds that a process may not answer while another is replaced; loading what it needs takes seconds."""


def serve_atlases(
    settings: "Settings", host: str, port: int, first_pages: Sequence[str] = (), process_count: int = 1
) -> None:
    """Serve until interrupted, and say where, and which pages to look at first.

    Raises UsageError for an open address without keys and for a port in use, and what is wrong with an atlas.
    """
    if not is_loopback(host) and settings.key_file is None and not settings.anonymous_read:
        raise UsageError(
            f"refusing to listen on {host} without keys: anyone there could read the atlases; "
            "give --key-file, or --anonymous-read if that is meant"
        )
    from unitscope_services.web.app import create_app

    settings = settings.model_copy(update={"allowed_hosts": (*settings.allowed_hosts, *_named(host))})
    app = create_app(settings)
    listener = _listen(host, port)
    app.state.app_state.open()
    if settings.preload and process_count == 1:
        _load_libraries()
    shown = f"[{host}]" if ":" in host else host
    root = f"http://{shown}:{listener.getsockname()[1]}"
    sys.stderr.write(f"serving on {root}/  (Ctrl-C stops)\n")
    sys.stderr.writelines(f"  {root}{page}\n" for page in first_pages)
    sys.stderr.writelines(f"{remark}\n" for remark in app.state.app_state.atlases.remarks)
    sys.stderr.flush()
    if process_count == 1:
        import uvicorn

        class Stopped(uvicorn.Server):
            """A server that ends in time, whatever is still running."""

            def handle_exit(self, sig: int, frame: "FrameType | None") -> None:
                _end_within(settings.grace_s if not self.should_exit else 0, sig)
                super().handle_exit(sig, frame)

        Stopped(_configured(app, settings)).run(sockets=[listener])
    else:
        app.state.app_state.close()
        _serve_side_by_side(settings, listener, process_count)


def _load_libraries() -> None:
    """Import what runs models and searches vectors.

    That is seconds of one thread's work. Beside threads that answer it would get its share of the interpreter alone:
    the first picture from outside would wait for a minute among 50 clients.
    """
    for name in _HEAVY:
        import_module(name)


def bound_native_threads() -> None:
    """Let libraries compute on half of the cores, unless the environment says otherwise; call before they are imported.

    Requests are answered side by side, so that threads of one question's own take the cores from the next, and from
    what takes requests: with all cores, easy answers beside costly ones took more than twice as long on two.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _named(host: str) -> tuple[str, ...]:
    """Return the name that is listened on, by which readers may ask: none for a number."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return (host,)
    return ()


def usual_rate(host: str, keys_are_used: bool) -> float:
    """Return how many requests each second a key or address may send where nobody says it.

    On this machine and without keys there is no limit: whoever asks there is the person who serves, and turns by kind
    bound what that person's own scripts cost. A proxy on this machine has to limit its readers itself.
    """
    return 0.0 if is_loopback(host) and not keys_are_used else _USUAL_RATE_PER_S


def _serve_side_by_side(settings: "Settings", listener: socket.socket, process_count: int) -> None:
    """Serve by several processes, which share uploads, jobs and figures; a process that dies is replaced."""
    from uvicorn.supervisors import Multiprocess

    from unitscope_services.server.shared import held
    from unitscope_services.server.telemetry import SHARED_FIGURES

    class Replaced(Multiprocess):
        """Processes of which each is replaced as soon as it has ended; the others are asked then if they answer."""

        def keep_subprocess_alive(self) -> None:
            if not all(process.process.is_alive() for process in self.processes):
                for process in self.processes:
                    process.child_conn.close()  # else one that dies while it is asked would be waited for
                super().keep_subprocess_alive()

    with tempfile.TemporaryDirectory(prefix="unitscope-") as figures, held(settings) as address:
        os.environ[SHARED_FIGURES] = figures
        made = partial(_made_beside, settings, address)
        options = {"workers": process_count, "timeout_worker_healthcheck": _PATIENCE_S}
        config = _configured(made, settings, factory=True, **options)
        processes = Replaced(config, [listener])
        stops = list[int]()

        def stop(number: int, _frame: object) -> None:
            _end_within(0 if stops else settings.grace_s, number, children=True)
            stops.append(number)
            processes.should_exit.set()

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        processes.run()
    if not stops:
        raise UnitscopeError("the server's processes do not start; what they wrote above says why")
    raise SystemExit(128 + stops[0])


def _end_within(grace_s: float, number: int, children: bool = False) -> None:
    """End this process, and its children, when requests have had their time, though threads still run."""

    def end() -> None:
        for child in multiprocessing.active_children() if children else ():
            child.kill()
        os._exit(128 + number)

    watch = threading.Timer(grace_s + _CLOSING_S, end)
    watch.daemon = True
    watch.start()


def _made_beside(settings: "Settings", address: str) -> "FastAPI":
    """Return the application of one of several processes, which ends when the one that started it does."""
    from unitscope_services.server.shared import Shared
    from unitscope_services.web.app import create_app

    threading.Thread(target=_end_with, args=[multiprocessing.parent_process()], daemon=True).start()
    if settings.preload:
        _load_libraries()
    return create_app(settings, Shared.held_at(address))


def _end_with(parent: "BaseProcess") -> None:
    """End this process when another has ended."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _configured(app: object, settings: "Settings", **options: Any) -> Any:
    import uvicorn

    from unitscope_services.web.connection import BoundedConnection

    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=BoundedConnection,
        timeout_graceful_shutdown=math.ceil(settings.grace_s),
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws_max_size=settings.upload_bytes,
        ws_max_queue=_MESSAGES_WAITING,
        ws_per_message_deflate=False,  # deflating frames and maps would take longer than to send them
        **options,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}; choose another --port") from None
