"""Pictures from outside: kept in memory for a while, bounded in number and size."""

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from unitscope_schemas.errors import NotFoundError
from unitscope_services.encoding.encoder import Encoded
from unitscope_services.server.access.readers import is_seen
from unitscope_services.server.settings import Settings

FORMATS = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True)
class UploadEntry:
    """An upload: its bytes, what the network sees of it, for which atlas, and whose it is."""

    id: str
    owner: str
    atlas: str
    data: bytes
    picture: Encoded
    expires_s: float

    @property
    def expires(self) -> str:
        """When the upload expires, ISO 8601 in UTC."""
        return datetime.fromtimestamp(self.expires_s, UTC).isoformat(timespec="seconds")

    @property
    def size_bytes(self) -> int:
        """Memory that the upload takes."""
        return len(self.data) + self.picture.prepared.pixels.nbytes


class Uploads:
    """Uploads by id. New ones push out the oldest.

    An upload is there for whoever `sees` its owner, as `Reader` says it, and for all others as if it were not.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entries: OrderedDict[str, UploadEntry] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, owner: str, atlas: str, data: bytes, picture: Encoded) -> UploadEntry:
        """Hold a picture until it expires or newer ones need the space."""
        expires_s = time.time() + self._settings.upload_lifetime_s
        entry = UploadEntry(secrets.token_urlsafe(16), owner, atlas, data, picture, expires_s)
        with self._lock:
            self._entries[entry.id] = entry
            self._drop_expired()
            while len(self._entries) > 1 and (
                len(self._entries) > self._settings.uploads_kept or self._bytes() > self._settings.uploads_kept_bytes
            ):
                self._entries.popitem(last=False)
        return entry

    def find(self, atlas: str, upload: str, sees: str | None) -> UploadEntry:
        """Return an upload to this atlas; raises NotFoundError once it has expired."""
        with self._lock:
            self._drop_expired()
            entry = self._entries.get(upload)
        if entry is None or entry.atlas != atlas or not is_seen(entry.owner, sees):
            raise NotFoundError(
                f"upload {upload!r} is not here: uploads are kept for "
                f"{self._settings.upload_lifetime_s / 60:g} minutes, the latest {self._settings.uploads_kept} of them"
            )
        return entry

    def remove(self, atlas: str, upload: str, sees: str | None) -> None:
        """Forget an upload; raises NotFoundError if there is none."""
        entry = self.find(atlas, upload, sees)
        with self._lock:
            self._entries.pop(entry.id, None)

    def total_bytes(self) -> int:
        """Return the memory that all uploads take."""
        with self._lock:
            self._drop_expired()
            return self._bytes()

    def _bytes(self) -> int:
        return sum(entry.size_bytes for entry in self._entries.values())

    def _drop_expired(self) -> None:
        now = time.time()
        for entry in [entry for entry in self._entries.values() if entry.expires_s <= now]:
            del self._entries[entry.id]
