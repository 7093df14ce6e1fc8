"""The look at every file that images were read from: is it there, and is it what was indexed?"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from unitscope_pipelines.storage.originals import Originals
from unitscope_schemas.addresses import Address
from unitscope_schemas.errors import AtlasError, CorpusError
from unitscope_schemas.progress import Progress, Report

_READ_AT_ONCE = 16
"""Count of pictures that are read at once."""
_IMAGES_AT_ONCE = 1_024
"""Count of images whose rows are in memory at once."""


@dataclass(frozen=True)
class Looked:
    """What a look at the pictures found."""

    count: int
    """Count of the files that were looked at."""
    faults: dict[str, str]
    """What is wrong with a picture, in words, by its path."""


class _File(NamedTuple):
    """A file, or a part of one, that holds the bytes of an image."""

    image_id: str
    path: str
    address: str


def look_at_pictures(originals: Originals, images: pa.Table, quick: bool, report: Report) -> Looked:
    """Digest every file that an image was read from, copies too; `images` has the columns of `tables.IMAGES`.

    With `quick` only the size and time of each image's first file are compared.
    """
    faults, count = dict[str, str](), 0
    report(Progress("check", 0, images.num_rows, "pictures"))
    with ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="check") as threads:
        for first in range(0, images.num_rows, _IMAGES_AT_ONCE):
            rows = images.slice(first, _IMAGES_AT_ONCE).to_pylist()
            if quick:
                paths, found = [row["path"] for row in rows], _changes(originals, rows)
            else:
                files = [file for row in rows for file in _files(row)]
                paths, found = [file.path for file in files], threads.map(partial(_fault, originals), files)
            faults |= {path: what for path, what in zip(paths, found, strict=True) if what is not None}
            count += len(paths)
            report(Progress("check", first + len(rows), images.num_rows, "pictures", skipped=len(faults)))
    return Looked(count, faults)


def _files(row: Mapping[str, Any]) -> list[_File]:
    paths, addresses = [row["path"], *row["other_paths"]], [row["address"], *row["other_addresses"]]
    return [_File(row["image_id"], path, address) for path, address in zip(paths, addresses, strict=True)]


def _fault(originals: Originals, file: _File) -> str | None:
    """Return what is wrong with a file, None if its bytes are those that were indexed."""
    try:
        data = originals.read(file.address)
    except (AtlasError, CorpusError) as error:
        return f"cannot be read: {error}"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None if hashlib.sha256(data).hexdigest() == file.image_id else "edited since it was indexed"


def _changes(originals: Originals, rows: Sequence[Mapping[str, Any]]) -> Iterator[str | None]:
    """Yield for each image what its first file's size and time say against it, None if they are as they were."""
    addresses = [Address.parse(row["address"]) for row in rows]
    states = originals.folder.sizes([address.file for address in addresses])
    for row, address, state in zip(rows, addresses, states, strict=True):
        if state is None:
            yield "cannot be read: there is no such file"
            continue
        same_size = address.part is not None or state.size_bytes == row["size_bytes"]
        same = same_size and state.modified_ns == row["modified_ns"]
        yield None if same else "of another size or time than when it was indexed"
