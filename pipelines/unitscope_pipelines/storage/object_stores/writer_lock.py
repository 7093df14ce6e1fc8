"""One writer at a time in an object store: a lock object that only one run can put, and that does not outlive it."""

import math
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel

from unitscope_pipelines.storage.processes import is_alive
from unitscope_schemas.errors import BusyError, StoreError

LIFETIME_S = 60.0
"""Seconds after which a lock that was not written belongs to a run that is dead, or cut off."""
_BEAT_S = 15.0
"""Seconds between two writes of the lock object."""
_FRESH_S = 30.0
"""Age of a write up to which it tells well enough that the lock is still held."""
_GONE = ("NoSuchKey", "404")
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409", *_GONE)


class _Owner(BaseModel):
    """A run as its lock object names it."""

    id: str = ""
    """Name of the run, which no other has."""
    host: str
    process: int
    scope: str | None = None
    """Scope within which the process number is unique; None where that is unknown."""
    beat: str = ""
    """Name of this write, so that no two states have one tag."""


@dataclass(frozen=True)
class _Holder:
    """The run that a lock object belongs to, when the store last heard of it, and the tag of that state."""

    owner: _Owner
    tag: str
    age_s: float

    @property
    def is_dead(self) -> bool:
        """Whether the run was not heard of for too long, or is a process of this machine that is gone."""
        if self.age_s > LIFETIME_S:
            return True
        scope = _process_scope()
        return scope is not None and self.owner.scope == scope and not is_alive(self.owner.process)


class WriterLock:
    """A lock object that only one run can put.

    It is put under the condition that there is none (If-None-Match), or that the dead one has not changed (If-Match),
    so that of several runs one succeeds. Times are the store's own: clocks of machines need not agree.

    A run that was cut off or paused for longer than LIFETIME_S may have lost its lock to another: `check` tells, and
    the run must put nothing more. Its workers may still put parts of shards, which replace each other whole; digests
    tell if such a part is not the one that a receipt names. A store that does not keep conditions is refused. Raises
    BusyError, StoreError, and what botocore raises.
    """

    def __init__(self, client: Any, bucket: str, key: str, address: str) -> None:
        self._client, self._object, self._address = client, {"Bucket": bucket, "Key": key}, address
        self._id = uuid.uuid4().hex
        self._tag, self._lost, self._beaten = "", False, 0.0
        self._renewing = threading.Lock()
        self._done = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="writer-lock", daemon=True)

    def acquire(self) -> None:
        """Become the only writer, until `release`."""
        tag = self._put(IfNoneMatch="*")
        if tag is None:
            holder = self._holder()
            if holder is not None and holder.is_dead:
                tag = self._put(IfMatch=holder.tag)
            elif holder is None:  # given back just now
                tag = self._put(IfNoneMatch="*")
            if tag is None:
                raise self._busy(holder)
        self._tag, self._beaten = tag, time.monotonic()
        if self._put(IfNoneMatch="*", is_ours=True) is not None:
            self._client.delete_object(**self._object)
            raise StoreError(
                f"the store of {self._address} ignores conditions of puts (If-None-Match), so two runs could not be "
                "kept apart; write the atlas to a folder and copy it there"
            )
        self._beating.start()

    def check(self) -> None:
        """Raise StoreError if another run has taken over; to be called before something is put."""
        if time.monotonic() - self._beaten > _FRESH_S:
            self._renew()
        if self._lost:
            raise StoreError(
                f"another run has taken over {self._address}, because this one was not heard of for too long; "
                "what it finished is kept, run again to resume once the other is done"
            )

    def release(self) -> None:
        """Let others write; a beat that is under way fails on its condition."""
        self._done.set()
        if not self._lost:
            self._client.delete_object(**self._object)

    def _beat(self) -> None:
        while not self._done.wait(_BEAT_S):
            with suppress(BotoCoreError, ClientError):  # the run's own requests tell what is wrong; the next may pass
                self._renew()

    def _renew(self) -> None:
        with self._renewing:
            tag = self._put(IfMatch=self._tag)
            self._lost = tag is None
            if tag is not None:
                self._tag, self._beaten = tag, time.monotonic()

    def _put(self, is_ours: bool = False, **condition: str) -> str | None:
        """Write the lock object and return its new tag, None if the condition does not hold.

        An answer that got lost makes a second try fail on what the first one wrote: that is ours, unless `is_ours`
        says that it was before.
        """
        owner = _Owner(
            id=self._id,
            host=socket.gethostname(),
            process=os.getpid(),
            scope=_process_scope(),
            beat=uuid.uuid4().hex,
        )
        body = owner.model_dump_json().encode()
        try:
            tag: str = self._client.put_object(**self._object, Body=body, **condition)["ETag"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in _TAKEN:
                raise
            holder = self._holder()
            mine = holder is not None and holder.owner.id == self._id
            return holder.tag if holder is not None and mine and not is_ours else None
        return tag

    def _holder(self) -> _Holder | None:
        try:
            answer = self._client.get_object(**self._object)
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                return None
            raise
        text = answer["Body"].read()
        if not text:  # the lock file of a folder, copied here with the rest: no run holds it
            return _Holder(_Owner(host="nowhere", process=0), answer["ETag"], math.inf)
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return _Holder(_Owner.model_validate_json(text), answer["ETag"], (now - answer["LastModified"]).total_seconds())

    def _busy(self, holder: _Holder | None) -> BusyError:
        who = "which has just begun"
        if holder is not None:
            owner = holder.owner
            who = f"process {owner.process} on {owner.host}, heard of {max(0, holder.age_s):.0f} s ago"
        return BusyError(
            f"another index run is writing {self._address}: {who}; wait for it or stop it (one that was killed gives "
            f"way after {LIFETIME_S:.0f} s)"
        )


def _process_scope() -> str | None:
    """Return what process numbers are unique within: a machine's boot and a namespace of it; None where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  (no path, but the namespace's name)
    except OSError:
        return None
