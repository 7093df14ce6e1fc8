"""What the processes of one server have in common, held by the one that started them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.managers import BaseManager
from typing import NamedTuple

from unitscope_services.server.job_registry import JobRegistry
from unitscope_services.server.settings import Settings
from unitscope_services.server.uploads import Uploads


class Shared(NamedTuple):
    """The registry of jobs and the uploads of a server, here or in the process that holds them."""

    job_registry: JobRegistry
    uploads: Uploads

    @classmethod
    def alone(cls, settings: Settings) -> "Shared":
        """Return what a server of one process has."""
        return cls(JobRegistry(settings), Uploads(settings))

    @classmethod
    def held_at(cls, address: str) -> "Shared":
        """Return what the process holds that started this one: each call goes there and back."""
        visitor = _Visitor(address)
        visitor.connect()
        return cls(visitor.job_registry(), visitor.uploads())  # type: ignore[attr-defined]


class _Visitor(BaseManager):
    """A client of the process that holds what is shared; only its children have the key to it."""


_Visitor.register("job_registry")
_Visitor.register("uploads")


@contextmanager
def held(settings: Settings) -> Iterator[str]:
    """Hold jobs and uploads for processes that are started meanwhile; gives the address they are found at."""
    shared = Shared.alone(settings)

    class Holder(BaseManager):
        """A server of what is shared."""

    Holder.register("job_registry", callable=lambda: shared.job_registry)
    Holder.register("uploads", callable=lambda: shared.uploads)
    server = Holder().get_server()
    threading.Thread(target=server.serve_forever, name="shared", daemon=True).start()
    yield str(server.address)
