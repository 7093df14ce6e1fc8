"""A connection to a running server: questions as addresses, answers as tables and documents, refusals as errors."""

import json
import sys
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pyarrow as pa

from unitscope_schemas import questions
from unitscope_schemas.errors import (
    AccessError,
    BusyError,
    ConflictError,
    ModelError,
    NotFoundError,
    OverloadError,
    PictureError,
    ScopeError,
    TooLargeError,
    UnitscopeError,
    UsageError,
)
from unitscope_schemas.question import Question

API = "/api/v1"
_TIMEOUT_S = 60.0
_ADDRESSES = ("url", "unit_url")
"""Names of the columns that a server adds to rows: where it shows them."""
_ERRORS = {
    kind.http_status: kind
    for kind in (
        *(UsageError, PictureError, TooLargeError, AccessError, ScopeError),
        *(NotFoundError, ModelError, ConflictError, BusyError, OverloadError),
    )
}


class Connection:
    """A server at an address, asked with a key if it has one."""

    def __init__(self, url: str, key: str | None) -> None:
        """Take the address; raises UsageError for what is none."""
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"server {url!r} is no address; give http:// or https://")
        self.url, self._key = url.rstrip("/"), key

    def document(self, path: str, question: Question | None = None) -> Any:
        """Return an answer that is one document."""
        return json.loads(self.ask(_address(path, question))[0])

    def table(self, path: str, question: Question | None = None) -> pa.Table:
        """Return one page of rows, without the addresses that a server adds."""
        return _read(self.ask(_address(f"{path}.arrow", question))[0])

    def whole_table(self, path: str, question: Question) -> pa.Table:
        """Return the rows of a page if the question says how many, else all rows, page by page."""
        if getattr(question, "k", None) is not None:
            return self.table(path, question)
        return self.first_rows(path, question, sys.maxsize)

    def first_rows(self, path: str, question: Question, count: int) -> pa.Table:
        """Return the first rows of an answer, however many pages they take."""
        page_size = min(count, questions.MOST_ROWS)
        parts, address = [], _address(f"{path}.arrow", question.model_copy(update={"k": page_size}))
        while address and count > 0:
            content, link = self.ask(address)
            parts.append(_read(content))
            count -= page_size
            address = link.partition("<")[2].partition(">")[0]
        table = pa.concat_tables(parts)
        return table.slice(0, len(table) + count) if count < 0 else table

    def post(self, path: str, body: bytes, media_type: str) -> Any:
        """Send bytes and return the document that answers."""
        return json.loads(self.ask(f"{API}/{path}", body, media_type)[0])

    def write(self, method: str, path: str, question: Question) -> list[dict[str, Any]]:
        """Return the rows that are there after a change."""
        body = json.dumps(fields_of(question)).encode()
        content = self.ask(f"{API}/{path}", body, "application/json", method)[0]
        rows: list[dict[str, Any]] = json.loads(content)["rows"] if content else []
        return rows

    def ask(
        self,
        address: str,
        body: bytes | None = None,
        media_type: str = "application/octet-stream",
        method: str | None = None,
    ) -> tuple[bytes, str]:
        """Return the body of an answer and its Link; raises the error that its problem details name."""
        headers = {} if body is None else {"Content-Type": media_type}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = Request(self.url + address, body, headers, method=method)
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as answer:
                return answer.read(), answer.headers.get("Link", "")
        except HTTPError as refusal:
            raise _error_of(refusal) from None
        except (URLError, TimeoutError) as failure:
            reason = getattr(failure, "reason", failure)
            raise BusyError(f"no server answers at {self.url}: {reason}; is unitscope serve running?") from None


def _read(content: bytes) -> pa.Table:
    table = pa.ipc.open_file(content).read_all()
    return table.drop_columns([name for name in _ADDRESSES if name in table.column_names])


def fields_of(question: Question) -> dict[str, Any]:
    """Return the fields of a question that are not as by default, as JSON and addresses write them."""
    return question.model_dump(mode="json", exclude_defaults=True)


def _address(path: str, question: Question | None = None) -> str:
    fields = {} if question is None else fields_of(question)
    return f"{API}/{path}?{urlencode(fields, doseq=True)}" if fields else f"{API}/{path}"


def _error_of(refusal: HTTPError) -> UnitscopeError:
    """Return the error of the tree with the answer's status, in the server's words."""
    try:
        detail = str(json.loads(refusal.read())["detail"])
    except (ValueError, KeyError, TypeError):
        return UnitscopeError(f"{refusal.url} answered {refusal.code} {refusal.reason}: is it a unitscope server?")
    return _ERRORS.get(refusal.code, UnitscopeError)(detail)
