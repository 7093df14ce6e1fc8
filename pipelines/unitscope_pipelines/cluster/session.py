"""A Ray session: the caller's, one of a running cluster or of this machine; and whether its head is still there."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

import unitscope_pipelines
import unitscope_schemas
from unitscope_schemas.errors import ClusterError, UnitscopeError

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "30",
}
"""Settings of Ray, unless set otherwise. To a node that hangs, a request would wait for seven minutes by default, and
processes whose head is gone would stay for one."""
_PROBE_S = 2.0
"""Seconds between two looks whether the head of the cluster answers, and that it may take to."""
_LOST_AFTER_S = 14.0
"""Seconds without an answer after which the head is lost."""
_END_AFTER_S = 8.0
"""Seconds after which a run ends that has not heard of it, as Ray itself waits for the head; Ray would end it without a
word soon after."""
_START_TRIES = 3
"""Count of tries to start Ray, which gives its processes half a minute; a busy machine takes longer now and then."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Use a Ray session: the caller's if there is one, that of a running cluster, or one started and stopped here.

    Raises UnitscopeError where no cluster answers at the address, or Ray does not start. Work within it raises
    ClusterError where the head of the cluster is lost; where Ray itself waits for it meanwhile, the process ends.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options["include_dashboard"] = False
    else:
        packages = (unitscope_schemas, unitscope_pipelines)
        options["runtime_env"] = {"py_modules": [str(Path(str(package.__file__)).parent) for package in packages]}
    _start(address, options)
    node = ray._private.worker.global_worker.node  # Ray has no other way to tell whether its process here is alive
    raylet = node.raylet_socket_name if node else ""
    with _Head(ray.get_runtime_context().gcs_address, raylet, address is None) as head:
        _heads.append(head)
        try:
            yield
        finally:
            _heads.remove(head)
            head.is_closing = True
            for end in at_end:
                end()
            ray.shutdown()


class _Head:
    """The head of the cluster of this process, and Ray's own process on this machine, which leads to it: both are
    watched from a thread for as long as the context lasts."""

    def __init__(self, address: str, raylet: str, is_local: bool) -> None:
        self.is_local = is_local
        """Whether the cluster is of this machine alone."""
        host, _, port = address.rpartition(":")
        self._place, self._raylet = (host.strip("[]"), int(port)), raylet
        self.is_closing = False
        """Whether the session ends, and its processes with it."""
        self._lost, self._left = threading.Event(), threading.Event()
        self._reason = (
            f"the head of the Ray cluster at {address} has not answered for {_LOST_AFTER_S:g} s: it is gone or cut off"
        )

    def __enter__(self) -> "_Head":
        threading.Thread(target=self._watch, name="head", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def check(self) -> None:
        """Raise ClusterError once the head is lost."""
        if self._lost.is_set():
            raise self._loss()

    def answers(self) -> bool:
        """Return whether the head lets others connect."""
        try:
            socket.create_connection(self._place, _PROBE_S).close()
        except OSError:
            return False
        return True

    def has_no_raylet(self) -> bool:
        """Return whether nothing listens where the raylet did; one that is too busy to take a connection is there."""
        if self.is_closing or not self._raylet:
            return False
        try:
            with socket.socket(socket.AF_UNIX) as asked:
                asked.settimeout(_PROBE_S)
                asked.connect(self._raylet)
        except OSError as error:
            return isinstance(error, ConnectionRefusedError | FileNotFoundError)
        return False

    def wait_for_loss(self) -> None:
        """Raise ClusterError if the head does not answer and is not back in time, or the raylet has ended.

        Ray then fails in many ways.
        """
        if (self.has_no_raylet() or not self.answers()) and self._lost.wait(_LOST_AFTER_S + 2 * _PROBE_S):
            raise self._loss()

    def _watch(self) -> None:
        answered_s = time.monotonic()
        while not self._left.wait(_PROBE_S):
            answered_s = time.monotonic() if self.answers() else answered_s
            if has_ended := self.has_no_raylet():
                self._reason = "Ray's own process on this machine, the raylet, has ended: killed, or out of memory"
            if has_ended or time.monotonic() - answered_s > _LOST_AFTER_S:
                self._lost.set()
                if not self._left.wait(_END_AFTER_S):
                    sys.stderr.write(f"error: {self._loss()}\n")
                    sys.stderr.flush()
                    os._exit(ClusterError.exit_code)
                return

    def _loss(self) -> ClusterError:
        return ClusterError(f"{self._reason}; what is finished is kept")


_heads: list[_Head] = []
"""The head of the cluster that `connected` uses now, if it is not the caller's own."""
at_end: list[Callable[[], None]] = []
"""What is done before a session ends."""


def is_alone() -> bool:
    """Return whether the session is of this machine and run alone, begun by `connected`."""
    return any(head.is_local for head in _heads)


def check_head() -> None:
    """Raise ClusterError once the head is lost."""
    for head in _heads:
        head.check()


def wait_for_loss() -> None:
    """Raise ClusterError if the head does not answer and is not back in time, or the raylet has ended."""
    for head in _heads:
        head.wait_for_loss()


def total_resources() -> dict[str, float]:
    """Return what all nodes have together; nothing while the head does not answer: Ray would wait for it."""
    if not all(head.answers() for head in _heads):
        return {}  # the run is told when it is lost
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return total


def _start(address: str | None, options: dict[str, Any]) -> None:
    """Start a local cluster, on loopback alone, or connect to a running one, in several tries where Ray's processes are
    late."""
    # as the variable RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 says, which is read when Ray is imported
    ray_constants.ENABLE_RAY_CLUSTER = address is not None
    for left in reversed(range(_START_TRIES)):
        try:
            with _own_stop():
                ray.init(address=address or "local", **options)
            return
        except ConnectionError as error:
            raise UnitscopeError(
                f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}; is it running (ray status), and "
                "is RAY_AUTH_MODE=token set here with the cluster's token in ~/.ray/auth_token?"
            ) from None
        except Exception as error:  # Ray raises no narrower kind where its processes are late
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise UnitscopeError(
                    f"Ray did not start in {_START_TRIES} tries of half a minute: this machine is too busy or short of "
                    "memory; run again when it has less to do"
                ) from error


@contextmanager
def _own_stop() -> Iterator[None]:
    """Keep this process's answer to SIGTERM: Ray's own prints the stack of its C++ code and exits with another code."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
