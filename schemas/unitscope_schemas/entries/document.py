"""Documents that end with a digest of themselves, so that a changed byte in one is seen by whoever reads it.

The digest stands inside the document and not in a file beside it: both take their place in one step, also in an object
store, and a copy of the document brings it along.
"""

import hashlib
import re

from pydantic import BaseModel, ValidationError

_SEAL = re.compile(r',\n "(?P<name>[^"\n]*)": "(?P<digest>[^"\n]{64})"\n}$')
"""Last entry of a document if that is a text of 64 characters: a damaged name of a digest must not hide it."""
_END = "\n}"


def sealed_text(document: BaseModel) -> str:
    """Return a document as JSON whose last entry is the SHA-256 of the text without that entry."""
    text = document.model_dump_json(indent=1)
    return f'{text.removesuffix(_END)},\n "digest": "{digest_of(text)}"{_END}'


def unsealed_text(text: str) -> str:
    """Return the text of a document without its digest; raises ValueError unless the digest is its own.

    A text without one, as earlier versions wrote them, is returned as it is.
    """
    seal = _SEAL.search(text)
    if seal is None:
        return text
    content = text[: seal.start()] + _END
    if seal["name"] != "digest" or digest_of(content) != seal["digest"]:
        raise ValueError("it is not the text that its digest is of")
    return content


def is_sealed(text: str) -> bool:
    """Tell whether a text ends with a digest."""
    return _SEAL.search(text) is not None


def damage(error: ValidationError) -> str:
    """Return what is wrong with a document, in words: how many faults it has, and the first of them."""
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"])) or "the start"
    return f"{error.error_count()} faults, first at {where} ({fault['msg']})"


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
