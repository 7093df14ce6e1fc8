"""Compressed tars, which are unpacked into a temporary file: a picture within has no place of its own before."""

import bz2
import gzip
import lzma
import tempfile
import zlib
from typing import IO, NamedTuple

from unitscope_pipelines.storage.filesystem import Folder

_AT_ONCE_BYTES = 1 << 24
_GZIP, _BZIP, _XZ = (".gz", ".tgz"), ".bz2", ".xz"


class UnpackedTar(NamedTuple):
    """A compressed tar as a file without a name, which is gone when it is closed."""

    file: IO[bytes]
    size_bytes: int
    fault: str
    """What is wrong with the compressed file, empty if nothing: what comes before the damage is unpacked."""


def is_compressed(file: str) -> bool:
    """Tell by its name whether a tar is compressed."""
    return file.lower().endswith((*_GZIP, _BZIP, _XZ))


def unpack(folder: Folder, file: str) -> UnpackedTar:
    """Unpack a compressed file up to its end or its damage; raises OSError if it cannot be read or the disk is full."""
    target, fault = tempfile.TemporaryFile(prefix="unitscope-"), ""  # noqa: SIM115  (the caller closes it)
    try:
        with folder.open(file, _AT_ONCE_BYTES) as source, _decompressed(file, source) as plain:
            while chunk := plain.read1(1 << 20):  # what precedes damage too; `read` would lose it
                target.write(chunk)
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        fault = str(error)
    except OSError as error:
        if error.errno:
            target.close()
            raise
        fault = str(error)  # damage, in the words of gzip and bz2
    fault = fault and f"its compression is damaged, and members are lost: {fault}"
    return UnpackedTar(target, target.seek(0, 2), fault)


def _decompressed(file: str, source: IO[bytes]) -> gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile:
    name = file.lower()
    if name.endswith(_BZIP):
        return bz2.BZ2File(source)
    return lzma.LZMAFile(source) if name.endswith(_XZ) else gzip.GzipFile(fileobj=source)
