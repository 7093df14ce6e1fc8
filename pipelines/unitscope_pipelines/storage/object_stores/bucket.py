"""Objects below an address of an object store that speaks S3: listed, asked for their state, read."""

import errno
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from unitscope_pipelines.storage.stored_file import StoredFile

ATTEMPTS = 6
"""Tries of a request, waiting up to 1, 2, 4, 8 and 16 s in between; AWS_MAX_ATTEMPTS overrides it."""
FORBIDDEN = ("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
"""Codes by which a store says that these credentials may not do what was asked."""
_CONNECT_S, _ANSWER_S = 5, 60
_CONNECTIONS, _AT_ONCE = 32, 16
_MISSING = ("404", "NoSuchKey", "NoSuchBucket")
_BEYOND = "InvalidRange"
_LAST, _SURROGATES = "\U0010ffff", range(0xD800, 0xE000)


def s3_client(is_anonymous: bool) -> Any:
    """Return the client of this process for the store that AWS_… variables name; raises ValueError for a wrong one."""
    told = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _client(is_anonymous, told)


@lru_cache(16)
def _client(is_anonymous: bool, _told: tuple[tuple[str, str], ...]) -> Any:
    options: dict[str, Any] = {"signature_version": UNSIGNED} if is_anonymous else {}
    config = Config(
        retries={"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))},
        connect_timeout=_CONNECT_S,
        read_timeout=_ANSWER_S,
        max_pool_connections=_CONNECTIONS,
        **options,
    )
    return boto3.session.Session().client("s3", config=config)


def modified_ns(answer: dict[str, Any]) -> int:
    """Return the time that a store tells of an object, in nanoseconds since 1970."""
    told: datetime = answer["LastModified"]
    return int(told.timestamp()) * 10**9 + told.microsecond * 1000


class Bucket:
    """The objects of a bucket below a prefix, named relative to it: `s3://bucket/prefix`, `s3://anonymous@bucket/…`.

    A request is tried several times before OSError is raised; FileNotFoundError where there is no such object.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.name, self._base = parts.netloc.rpartition("@")[2], unquote(parts.path).strip("/")
        self._client = s3_client(bool(parts.username))

    def walk(self) -> Iterator[StoredFile]:
        """List all objects, in order of their names: a request for a thousand."""
        begins, pages = self._key(""), self._client.get_paginator("list_objects_v2")
        with _asked():
            for page in pages.paginate(Bucket=self.name, Prefix=begins):
                yield from (file._replace(path=file.path[len(begins) :]) for file in _files(page))

    def states(self, names: Sequence[str]) -> dict[str, StoredFile]:
        """Return the states of those objects that are there: a request for a thousand that lie close together.

        A page of a listing begins at each name that the page before did not reach, so that there are never more
        requests than names; who is not met, because a store lists in another order or late, is asked for alone.
        """
        found, missed = dict[str, StoredFile](), list[str]()
        left = sorted(((self._key(name), name) for name in set(names)), reverse=True)
        while len(left) > 1:
            first = left[-1][0]
            try:
                page, is_last = self._page(_before(first))
            except PermissionError:  # who may read objects need not be allowed to list them
                break
            reached = _LAST if is_last else max(first, *page)
            while left and left[-1][0] <= reached:
                key, name = left.pop()
                if key in page:
                    found[name] = page[key]._replace(path=name)
                else:
                    missed.append(name)
        missed += [name for _, name in left]
        with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(missed))), thread_name_prefix="ask") as threads:
            found |= {state.path: state for state in threads.map(self.state, missed) if state is not None}
        return found

    def state(self, name: str) -> StoredFile | None:
        """Return the state of an object, None if there is none."""
        try:
            with _asked():
                answer = self._client.head_object(Bucket=self.name, Key=self._key(name))
        except FileNotFoundError:
            return None
        return StoredFile(name, answer["ContentLength"], modified_ns(answer))

    def read(self, name: str, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """Read an object with one request, or `size_bytes` of it from `offset` on, of which there may be fewer."""
        if size_bytes == 0:
            return b""
        part = {} if size_bytes is None else {"Range": f"bytes={offset}-{offset + size_bytes - 1}"}
        with _asked():
            data: bytes = self._client.get_object(Bucket=self.name, Key=self._key(name), **part)["Body"].read()
        return data

    def open(self, name: str, at_once_bytes: int) -> IO[bytes]:
        """Open an object for reading at any position; a request brings `at_once_bytes` of it."""
        state = self.state(name)
        if state is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object")
        return cast(IO[bytes], io.BufferedReader(_Reader(self, state), at_once_bytes))

    def _key(self, name: str) -> str:
        return f"{self._base}/{name}" if self._base else name

    def _page(self, after: str) -> tuple[dict[str, StoredFile], bool]:
        """List the next thousand objects after a key by their keys, and tell whether they are the last."""
        with _asked():
            page = self._client.list_objects_v2(Bucket=self.name, StartAfter=after)
        return {file.path: file for file in _files(page)}, not page.get("IsTruncated")


def _files(page: dict[str, Any]) -> Iterator[StoredFile]:
    for item in page.get("Contents", ()):
        if not item["Key"].endswith("/"):  # what stands for a folder
            yield StoredFile(item["Key"], item["Size"], modified_ns(item))


class _Reader(io.RawIOBase):
    """An object as a file: each read is a request for the bytes that are asked for."""

    def __init__(self, bucket: Bucket, state: StoredFile) -> None:
        self._bucket, self._state, self._position = bucket, state, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._state.size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._state.size_bytes - self._position)
        if wanted <= 0:
            return 0
        data = self._bucket.read(self._state.path, self._position, wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _before(key: str) -> str:
    """Return a text behind which a store lists this key, and hardly any before it.

    >>> _before("a/b") < "a/b", _before("a/b") > "a/az"
    (True, True)
    """
    code = ord(key[-1]) - 1
    if code < 0:
        return key[:-1]
    return f"{key[:-1]}{chr(code if code not in _SURROGATES else _SURROGATES.start - 1)}{_LAST}"


@contextmanager
def _asked() -> Iterator[None]:
    """Raise OSError for what a store refuses, FileNotFoundError for what it does not have."""
    try:
        yield
    except ClientError as error:
        about = error.response.get("Error", {})
        code = str(about.get("Code", ""))
        if code in _MISSING:
            raise FileNotFoundError(errno.ENOENT, "there is no such bucket or object") from None
        if code in FORBIDDEN:
            raise PermissionError(errno.EACCES, f"{code}: {about.get('Message', error)}") from None
        if code == _BEYOND:
            raise OSError(0, "the file ends early") from None
        raise OSError(0, f"{code}: {about.get('Message', error)}") from None
    except BotoCoreError as error:
        raise OSError(0, f"the store does not answer: {error}") from None
