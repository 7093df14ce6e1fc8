"""List and read the images of a corpus: for now a folder tree, whose sub-folders are labels."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from schemas.errors import CorpusError

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff".split()  # noqa: SIM905
)


@dataclass(frozen=True, order=True)
class CorpusFile:
    """A file that should be a picture, as the listing saw it."""

    path: str
    size_bytes: int
    modified_ns: int

    @property
    def label(self) -> str | None:
        """The folder of the file below the corpus root."""
        parent = PurePosixPath(self.path).parent.as_posix()
        return None if parent == "." else parent


@dataclass(frozen=True)
class Listing:
    """All picture files of a corpus in order of their paths, and how many other files were passed over."""

    root: Path
    files: list[CorpusFile]
    ignored_count: int


def list_corpus(corpus: str, limit: int | None = None) -> Listing:
    """Walk the folder tree; hidden files and files without a picture's suffix are counted, not listed.

    Raises CorpusError if the folder is missing, unreadable or holds no picture file.
    """
    root = Path(corpus)
    if not root.exists():
        raise CorpusError(f"corpus {corpus!r} does not exist; give a folder of pictures")
    if not root.is_dir():
        raise CorpusError(f"corpus {corpus!r} is a file; give the folder that holds the pictures")
    files: list[CorpusFile] = []
    ignored_count = 0
    for path, entry in _walk(root):
        if Path(path).suffix.lower() not in SUFFIXES or entry.name.startswith("."):
            ignored_count += 1
            continue
        stat = entry.stat()
        files.append(CorpusFile(path, stat.st_size, stat.st_mtime_ns))
    files.sort()
    if not files:
        raise CorpusError(
            f"corpus {corpus!r} holds no picture ({ignored_count} other files); "
            "readable are JPEG, PNG, WebP, BMP, GIF and TIFF"
        )
    return Listing(root.resolve(), files[:limit], ignored_count)


def _walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise CorpusError(f"folder {str(folder)!r} cannot be listed: {error.strerror}") from None
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    pending.append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif entry.is_file():
                yield f"{prefix}{entry.name}", entry
