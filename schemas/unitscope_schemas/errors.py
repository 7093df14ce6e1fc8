"""Errors: every one that a caller may meet.

UnitscopeError               exit code   HTTP status
├── UsageError                2           400   the request itself is wrong
│   ├── PictureError          2           422   the bytes are no picture that can be used
│   └── TooLargeError         2           413   the request's body is over the limit
├── AccessError               1           401   no key, or one that is not known
│   └── ScopeError            1           403   the key does not allow this
├── NotFoundError             5           404   the named thing is not there
├── CorpusError               1           -     the corpus cannot be indexed
├── ModelError                2           409   the model cannot be built, or is not the atlas's
├── AtlasError                1           500   the atlas on disk is damaged
│   └── FormatError           6           500   the atlas has another format version
├── ClusterError              1           -     the Ray cluster of a run is lost
├── ConflictError             1           412   it was changed by another one meanwhile
├── BusyError                 6           503   another run holds it, or the question takes too long
│   └── OverloadError         6           429   too many such requests at once
├── CapacityError             1           507   there is not enough memory for what is asked
└── StorageError              1           507   writing failed: disk full, no permission
    ├── StoreError            1           503   the object store refuses or does not answer
    └── ReadOnlyError         1           409   this process may not write into the atlas

A message says what, which, and what would do.
"""

from collections.abc import Iterable


class UnitscopeError(Exception):
    """Base of all errors that a person can act on; its text is shown as it is."""

    exit_code = 1
    """Status with which the command line ends."""
    http_status = 500
    """Status of the server's reply."""
    title = "unitscope failed"
    """Heading of the error on pages and in replies."""


class UsageError(UnitscopeError):
    """The request itself is wrong: a bad option, range, box or identifier."""

    exit_code = 2
    http_status = 400
    title = "Bad request"


class PictureError(UsageError):
    """The bytes are no picture that can be used."""

    http_status = 422
    title = "Not a usable picture"


class TooLargeError(UsageError):
    """The request's body is over the limit."""

    http_status = 413
    title = "Too large"


class AccessError(UnitscopeError):
    """The request carries no key, or one that is not known."""

    http_status = 401
    title = "A key is needed"


class ScopeError(AccessError):
    """The request's key is known but does not allow this."""

    http_status = 403
    title = "Not allowed"


class NotFoundError(UnitscopeError):
    """The named thing is not there; the message names what is."""

    exit_code = 5
    http_status = 404
    title = "Not found"


class CorpusError(UnitscopeError):
    """The corpus is empty, of no known kind, or holds no readable picture."""

    title = "Unusable corpus"


class MissingCorpusError(CorpusError):
    """The corpus is not there."""

    exit_code = 5


class ModelError(UnitscopeError):
    """The model cannot be built, or its weights are not those of the atlas."""

    exit_code = 2
    http_status = 409
    title = "Model does not fit"


class AtlasError(UnitscopeError):
    """The atlas on disk is damaged or incomplete."""

    title = "Damaged atlas"


class FormatError(AtlasError):
    """The atlas was written in another format version."""

    exit_code = 6
    title = "Other format version"


class ClusterError(UnitscopeError):
    """The Ray cluster that a run works on is lost; what is finished is kept."""

    title = "Cluster lost"
    again = "run it again to go on"
    """How to go on, which ends every message; the command line puts its command here."""

    def __str__(self) -> str:
        return f"{super().__str__()}. {self.again}"


class ConflictError(UnitscopeError):
    """What is to be changed was changed by another one since it was looked at."""

    http_status = 412
    title = "Changed meanwhile"


class BusyError(UnitscopeError):
    """Another run holds the atlas, a question takes longer than the server allows, or the server is short of memory."""

    exit_code = 6
    http_status = 503
    title = "Busy"
    retry_after_s: int | None = None
    """Seconds after which the same request may be tried again, where that would do."""

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class OverloadError(BusyError):
    """More requests of a costly kind than the server lets wait."""

    http_status = 429
    title = "Too many requests"
    retry_after_s = 2


class CapacityError(UnitscopeError):
    """There is not enough memory for what is asked."""

    http_status = 507
    title = "Not enough memory"


class StorageError(UnitscopeError):
    """Writing failed: the disk is full, or there is no permission."""

    http_status = 507
    title = "Cannot write"


class StoreError(StorageError):
    """The object store refuses, for example for want of credentials, or does not answer."""

    http_status = 503
    title = "Object store unavailable"


class ReadOnlyError(StorageError):
    """This process may not write into the atlas, so a job that stores its results there is refused."""

    http_status = 409
    title = "Atlas is read-only"


def listing(names: Iterable[object], most: int = 12) -> str:
    """Join names for a message, shortened after `most`."""
    texts = [str(name) for name in names]
    tail = f" … ({len(texts)} in all)" if len(texts) > most else ""
    return ", ".join(texts[:most]) + tail
