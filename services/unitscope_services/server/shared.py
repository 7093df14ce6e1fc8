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
    """The board of jobs and the uploads of a server, here or in the process that holds them."""

    job_registry: JobRegistry
    uploads: Uploads

    @classmethod
    def alone(cls, settings: Settings) -> "Shared":
        """For a server of one process."""
        return cls(JobRegistry(settings), Uploads(settings))

    @classmethod
    def held_at(cls, address: str) -> "Shared":
        """Those that the process which started this one holds: each call goes there and back."""
        visitor = _Visitor(address)
        visitor.connect()
        return cls(visitor.job_registry(), visitor.uploads())  # type: ignore[attr-defined]


class _Visitor(BaseManager):
    """Asks the process that holds them; only its children have the key to it."""


_Visitor.register("job_registry")
_Visitor.register("uploads")


@contextmanager
def held(settings: Settings) -> Iterator[str]:
    """Hold a board and uploads for processes that are started meanwhile; gives the address they are found at."""
    own = Shared.alone(settings)

    class Holder(BaseManager):
        pass

    Holder.register("job_registry", callable=lambda: own.job_registry)
    Holder.register("uploads", callable=lambda: own.uploads)
    server = Holder().get_server()
    threading.Thread(target=server.serve_forever, name="shared", daemon=True).start()
    yield str(server.address)
