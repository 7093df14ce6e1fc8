"""What a listing says of a file."""

from typing import NamedTuple


class StoredFile(NamedTuple):
    """A file as a listing sees it: its path, and what tells its present state from another."""

    path: str
    size_bytes: int
    modified_ns: int
