"""An atlas below an address of an object store that speaks S3."""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from unitscope_pipelines.storage.cache import Cache, LocalPart
from unitscope_pipelines.storage.object_stores.bucket import FORBIDDEN, modified_ns, s3_client
from unitscope_pipelines.storage.object_stores.ranged_object import HeldRanges, RangedObject
from unitscope_pipelines.storage.object_stores.writer_lock import WriterLock
from unitscope_pipelines.storage.stored_file import StoredFile
from unitscope_schemas import layout
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError, NotFoundError, StoreError, UsageError

_AT_ONCE = 16
_DELETED_AT_ONCE = 1000
_BLOCK_BYTES = 1 << 20
_MISSING = ("404", "NoSuchKey")
_TOO_FAR = ("416", "InvalidRange")
_HELD_BYTES = 64 << 20
"""Bytes of parts that are read by ranges which are remembered."""


def open_object_store(address: str, cache: Cache | None = None) -> "ObjectStore":
    """Open the atlas at an address, once in a process for each cache; None: the cache that the environment names."""
    return _opened(address, cache or Cache.from_environment())


@lru_cache(64)
def _opened(address: str, cache: Cache) -> "ObjectStore":
    return ObjectStore(address, cache)


class ObjectStore:
    """An atlas at `s3://bucket/path`: credentials and AWS_ENDPOINT_URL are the usual ones, `anonymous@bucket` reads
    without. A request is tried several times before StoreError is raised; a missing bucket is a NotFoundError.

    The store must be consistent (what was put is read and listed at once) and keep conditions of puts, as S3 does.
    """

    stamp_lifetime_s = 1.0
    is_here = False

    def __init__(self, address: str, cache: Cache) -> None:
        parts = urlsplit(address)
        if parts.query or parts.password or parts.username not in (None, "anonymous") or not parts.hostname:
            raise UsageError(
                f"{parts.scheme}://{parts.hostname or '…'}{parts.path} is no address of an atlas in an object store: "
                "it is s3://bucket/path, or s3://anonymous@bucket/path; the rest is told by AWS_… variables"
            )
        self.address = address.rstrip("/")
        self.cache = cache
        self._bucket = parts.netloc.rpartition("@")[2]
        self._prefix = unquote(parts.path).strip("/")
        try:
            with self._in_words("be reached"):
                self._client = s3_client(bool(parts.username))
        except ValueError as error:
            raise UsageError(f"AWS_ENDPOINT_URL leads nowhere: {error}") from None
        self._lock: WriterLock | None = None
        self._ranges = HeldRanges(_HELD_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        """Name the address alone: another process has its own connections, its own cache, and no lock."""
        return open_object_store, (self.address,)

    @property
    def name(self) -> str:
        """The last part of the path, or the bucket's name."""
        return self._prefix.rpartition("/")[2] or self._bucket

    @property
    def scratch(self) -> Path:
        """The folder of the cache, where parts are written before they are put."""
        return self.cache.folder

    def hold(self, part: Part) -> LocalPart:
        """Return the part as a file of the cache; raises AtlasError where it is missing or not what was sealed."""

        def fetch(file: IO[bytes]) -> None:
            with self._in_words(f"read {part.path}"):
                self._client.download_fileobj(self._bucket, self._key(part.path), file)

        return self.cache.hold(part, fetch)

    @contextmanager
    def open_range(self, part: Part) -> Iterator[pa.NativeFile]:
        """Open the part, of which every run of bytes that is read is one request; in the cache if it is there."""
        if (cached := self.cache.find(part)) is not None:
            with cached as file, pa.OSFile(str(file)) as opened:
                yield opened
            return

        def read(start: int, end: int) -> bytes:
            with self._in_words(f"read {part.path}"):
                asked = f"bytes={start}-{end - 1}"
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key(part.path), Range=asked)
                data: bytes = answer["Body"].read()
            if len(data) < end - start:
                raise AtlasError(f"part {part.path} of {self.address} is damaged: it has fewer bytes than were sealed")
            return data

        ranged = RangedObject(part.path, part.size_bytes, read, self._ranges)
        with pa.PythonFile(ranged, mode="r") as opened:
            yield opened

    def read(self, path: str) -> bytes | None:
        """Return a document's bytes, None if there is none."""
        try:
            with self._in_words(f"read {path}"):
                data: bytes = self._body(path).read()
        except AtlasError:
            return None
        return data

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Return the bytes of several documents in their order, read at once; those that are gone are left out."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="read") as threads:
            return [data for data in threads.map(self.read, paths) if data is not None]

    def fetch(self, parts: Iterable[Part]) -> None:
        """Bring parts into the cache, several at a time: each takes some hundredths of a second, whatever its size.

        Raises StorageError if the cache has no room for all of them together.
        """
        wanted = list(parts)
        self.cache.check_room(wanted)

        def take(part: Part) -> None:
            with self.hold(part):
                pass

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as threads:
            list(threads.map(take, wanted))

    def stamp(self, path: str) -> Hashable | None:
        """Return the tag of a document, None if there is none."""
        try:
            with self._in_words(f"look at {path}"):
                tag: str = self._client.head_object(Bucket=self._bucket, Key=self._key(path))["ETag"]
        except AtlasError:
            return None
        return tag

    def digest(self, path: str) -> str:
        """Return the SHA-256 of an object as it is stored; raises OSError if there is none."""
        digest = hashlib.sha256()
        try:
            with self._in_words(f"read {path}"):
                for block in self._body(path).iter_chunks(_BLOCK_BYTES):
                    digest.update(block)
        except AtlasError:
            raise FileNotFoundError(0, "there is no such object") from None
        return digest.hexdigest()

    def walk(self, folder: str = "") -> Iterator[StoredFile]:
        """List all objects below a folder, in no order."""
        prefix, begins = self._below(folder), len(self._below(""))
        with self._in_words("be listed"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield StoredFile(item["Key"][begins:], item["Size"], modified_ns(item))

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """Give a path in the cache to write a file to; what is there when the block ends is deleted."""
        with self.cache.writing() as file:
            yield file

    def put(self, file: Path, part: Part) -> None:
        """Put a written file; a large one goes in pieces, which become an object when the last has arrived."""
        self._check_lock()
        with self._in_words(f"take {part.path}"), file.open("rb") as written:
            self._client.upload_fileobj(written, self._bucket, self._key(part.path))
        self.cache.adopt(file, part)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects, a thousand with a request; those that are gone already are no error."""
        self._check_lock()
        for start in range(0, len(paths), _DELETED_AT_ONCE):
            named = [{"Key": self._key(path)} for path in paths[start : start + _DELETED_AT_ONCE]]
            with self._in_words("delete objects"):
                done = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": named, "Quiet": True})
            for error in done.get("Errors", ()):
                raise StoreError(f"{self.address} does not delete {error['Key']}: {error['Code']}, {error['Message']}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer until the block ends, by a lock object that is written anew as long; see WriterLock."""
        lock = WriterLock(self._client, self._bucket, self._key(layout.LOCK), self.address)
        with self._in_words("take a lock"):
            lock.acquire()
        self._lock = lock
        try:
            yield
        finally:
            self._lock = None
            with suppress(StoreError), self._in_words("give back the lock"):  # it would expire
                lock.release()

    def remove_unfinished(self) -> int:
        """Delete and count pieces of large files that never became an object; other leftovers there are none."""
        count = 0
        with self._in_words("list unfinished uploads"):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._below("")
            ):
                for upload in page.get("Uploads", ()):
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    count += 1
        return count

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}".strip("/")

    def _below(self, folder: str) -> str:
        """Return what the keys of all objects in a folder begin with."""
        key = self._key(folder)
        return f"{key}/" if key else ""

    def _body(self, path: str) -> Any:
        return self._client.get_object(Bucket=self._bucket, Key=self._key(path))["Body"]

    def _check_lock(self) -> None:
        if self._lock is not None:
            with self._in_words("keep the lock"):
                self._lock.check()

    @contextmanager
    def _in_words(self, what: str) -> Iterator[None]:
        """Say in words what is wrong with a request; raises AtlasError where there is no such object."""
        try:
            yield
        except ClientError as error:
            self._refuse(error, what)
        except (NoCredentialsError, PartialCredentialsError):
            raise StoreError(
                f"no credentials for {self.address}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
                "or read a public atlas at s3://anonymous@bucket/…"
            ) from None
        except ParamValidationError as error:
            raise UsageError(f"{self.address} is no address of an object store: {error}") from None
        except (BotoCoreError, Boto3Error) as error:
            raise StoreError(
                f"{self.address} does not answer: {error}; finished shards are kept, run again to resume; is "
                "AWS_ENDPOINT_URL right?"
            ) from None

    def _refuse(self, error: ClientError, what: str) -> NoReturn:
        """Raise the error of ours that a refusal of the store stands for."""
        about = error.response.get("Error", {})
        code, message = str(about.get("Code", "")), about.get("Message", str(error))
        if code == "NoSuchBucket":
            raise NotFoundError(f"bucket {self._bucket!r} of {self.address} does not exist; create it first") from None
        if code in _MISSING:
            raise AtlasError(f"{self.address} cannot {what}: there is no such object") from None
        if code in _TOO_FAR:
            raise AtlasError(f"{self.address} cannot {what}: the object has fewer bytes than were sealed") from None
        if code in FORBIDDEN:
            raise StoreError(
                f"{self.address} refuses to {what}: {code}, {message}; these credentials must be allowed to get and "
                "list objects, and for writing to put and delete them and to list and abort multipart uploads"
            ) from None
        raise StoreError(
            f"{self.address} fails to {what}: {code}, {message}; finished shards are kept, run again to resume"
        ) from None
