"""Pictures from outside: kept in memory for a while, bounded in number and size."""

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from unitscope_schemas.errors import NotFoundError
from unitscope_services.encoding.encoder import Encoded
from unitscope_services.server.settings import Settings

FORMATS = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True)
class UploadEntry:
    """One upload: its bytes, what the network sees of it, and for which atlas."""

    id: str
    atlas: str
    data: bytes
    picture: Encoded
    expires_s: float

    @property
    def expires(self) -> str:
        return datetime.fromtimestamp(self.expires_s, UTC).isoformat(timespec="seconds")

    @property
    def size_bytes(self) -> int:
        return len(self.data) + self.picture.prepared.pixels.nbytes


class Uploads:
    """Uploads by id. Ids are random: who has one may see the picture. New ones push out the oldest."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: OrderedDict[str, UploadEntry] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, atlas: str, data: bytes, picture: Encoded) -> UploadEntry:
        """Keep a picture until it expires or newer ones need the space."""
        expires_s = time.time() + self._settings.upload_lifetime_s
        kept = UploadEntry(secrets.token_urlsafe(16), atlas, data, picture, expires_s)
        with self._lock:
            self._kept[kept.id] = kept
            self._drop_expired()
            while len(self._kept) > 1 and (
                len(self._kept) > self._settings.uploads_kept or self._bytes() > self._settings.uploads_kept_bytes
            ):
                self._kept.popitem(last=False)
        return kept

    def find(self, atlas: str, upload: str) -> UploadEntry:
        """An upload to this atlas; raises NotFoundError once it has expired."""
        with self._lock:
            self._drop_expired()
            kept = self._kept.get(upload)
        if kept is None or kept.atlas != atlas:
            raise NotFoundError(
                f"upload {upload!r} is not here: uploads are kept for "
                f"{self._settings.upload_lifetime_s / 60:g} minutes, the latest {self._settings.uploads_kept} of them"
            )
        return kept

    def remove(self, atlas: str, upload: str) -> None:
        """Forget an upload; raises NotFoundError if there is none."""
        kept = self.find(atlas, upload)
        with self._lock:
            self._kept.pop(kept.id, None)

    def total_bytes(self) -> int:
        """Memory held by all uploads."""
        with self._lock:
            self._drop_expired()
            return self._bytes()

    def _bytes(self) -> int:
        return sum(kept.size_bytes for kept in self._kept.values())

    def _drop_expired(self) -> None:
        now = time.time()
        for kept in [kept for kept in self._kept.values() if kept.expires_s <= now]:
            del self._kept[kept.id]
