"""ETags and lifetimes of answers, known before any query runs.

An atlas version is immutable, so an answer is decided by version, package, address and format: the ETag is their
digest, equal on every replica. But the directory under an address can get a new version at any time, so only an
address that carries `v=<version>` may be kept for good; all others are revalidated, which costs no query.
"""

import hashlib
from functools import cache
from importlib.metadata import version as installed_version
from urllib.parse import urlencode

from starlette.requests import Request

FOR_GOOD = "max-age=31536000, immutable"
REVALIDATE = "no-cache"
PRIVATE = "private, no-store"


@cache
def package_version() -> str:
    """Return the version of unitscope that answers."""
    return installed_version("unitscope")


def etag_of(request: Request, version: str, kind: str) -> str:
    """Return a strong ETag of the answer in one format to this address, whatever the order of its parameters."""
    query = urlencode(sorted((name, value) for name, value in request.query_params.multi_items() if name != "v"))
    content = "\n".join([package_version(), version, request.scope["path"], query, kind])
    return f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'


def lifetime(request: Request, version: str, shared: bool) -> str:
    """Return Cache-Control of an answer; `shared` caches may keep what anyone may ask."""
    visibility = "public" if shared else "private"
    return f"{visibility}, {FOR_GOOD if request.query_params.get('v') == version else REVALIDATE}"


def is_known(request: Request, etag: str) -> bool:
    """Return whether the client has this answer already (weak comparison, RFC 9110 section 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") == etag for tag in given.split(","))
