"""The SQLite file beside an atlas that holds its annotations: made at the first writing, opened for each question.

What was written is on the disk before it is acknowledged; several processes may write. The atlas's own files are never
touched, so that annotations outlive its versions; of an atlas that can only be read they are as they are.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from unitscope_schemas.errors import AtlasError, BusyError, FormatError, ReadOnlyError, StorageError

SUFFIX = ".annotations.sqlite"
_TIMEOUT_S = 10.0
"""How long a writer waits for those before it."""
_MOST_BYTES, _PAGE_BYTES = 64_000_000, 4096
"""Most bytes of a file, so that what a reader asks of it has a bounded cost; and of a page, as SQLite has them."""
_APPLICATION, _FORMAT = 0x756E6974, 1
"""What marks a file as one of annotations, and the format of its tables."""
_CHANGES_AT = 24
"""Where the count of changes lies in the header of an SQLite file."""
_TABLES = {
    "atlas": "CREATE TABLE atlas (weights_digest TEXT NOT NULL) STRICT",
    "annotation": """CREATE TABLE annotation (
  revision INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, name TEXT NOT NULL, note TEXT NOT NULL,
  tags TEXT NOT NULL, author TEXT NOT NULL, time TEXT NOT NULL, version TEXT NOT NULL, removed INTEGER NOT NULL
) STRICT""",
    "annotation_subject": "CREATE INDEX annotation_subject ON annotation (subject, revision)",
    "collection": """CREATE TABLE collection (
  name TEXT PRIMARY KEY, about TEXT NOT NULL, author TEXT NOT NULL, time TEXT NOT NULL, revision INTEGER NOT NULL
) STRICT""",
    "item": """CREATE TABLE item (
  collection TEXT NOT NULL, position INTEGER NOT NULL, subject TEXT NOT NULL, note TEXT NOT NULL, author TEXT NOT NULL,
  time TEXT NOT NULL, PRIMARY KEY (collection, subject)
) STRICT""",
}
"""All that such a file consists of. Annotations are added to and never changed: the last one of a subject counts."""


class AnnotationFile:
    """The file of one atlas's annotations, which is there once something was written."""

    def __init__(self, path: Path | None, atlas: str, weights_digest: str) -> None:
        """Take the file, None where annotations have no place, and the digest of the weights that they are about."""
        self.path, self._atlas, self._weights_digest = path, atlas, weights_digest

    @classmethod
    def beside(cls, address: str | Path, folder: Path | None, name: str, weights_digest: str) -> "AnnotationFile":
        """Return the file in a folder, or else beside an atlas of this machine; one in an object store has none."""
        if folder is None and not isinstance(address, Path):
            return cls(None, name, weights_digest)
        if folder is None:
            assert isinstance(address, Path)
            folder = address.resolve().parent
        return cls(folder / f"{name}{SUFFIX}", name, weights_digest)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Give a connection that sees one state of the file, None where nothing was written yet; raises AtlasError."""
        if self.path is None or not self._is_there(self.path):
            yield None
            return
        with self._connected(self.path, "rw" if os.access(self.path, os.W_OK) else "ro") as connection:
            connection.execute("BEGIN")
            self._check(connection, self.path)
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection whose statements count, all of them, when the block ends; none if it raises.

        Raises ReadOnlyError where annotations cannot be kept, BusyError where others write for too long.
        """
        if self.path is None:
            raise ReadOnlyError(
                f"annotations of the atlas {self._atlas} have no place, as it lies in an object store: "
                "name a folder for them with --annotations"
            )
        self._is_there(self.path)
        try:
            with self._connected(self.path, "rwc") as connection:
                connection.execute("BEGIN IMMEDIATE")
                if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                    self._make(connection)
                self._check(connection, self.path)
                yield connection
                connection.execute("COMMIT")
        except PermissionError:
            raise self._read_only() from None

    @property
    def state(self) -> str:
        """What changes with every writing, so that pages know when they are old: SQLite's own count of changes."""
        if self.path is None or not self._is_there(self.path):
            return ""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(_CHANGES_AT)
            return f"{os.fstat(file.fileno()).st_mtime_ns:x}-{file.read(4).hex()}"
        return ""

    @property
    def is_writable(self) -> bool:
        """Whether this process may write annotations."""
        if self.path is None:
            return False
        return os.access(self.path if self.path.exists() else self.path.parent, os.W_OK)

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        for statement in _TABLES.values():
            connection.execute(statement)
        connection.execute("INSERT INTO atlas VALUES (?)", (self._weights_digest,))

    def _check(self, connection: sqlite3.Connection, path: Path) -> None:
        """Raise AtlasError for a file of something else, FormatError for another format, of this file or its maker."""
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
            raise AtlasError(f"{path.name} is no file of annotations")
        number = connection.execute("PRAGMA user_version").fetchone()[0]
        if number != _FORMAT:
            raise FormatError(f"{path.name} has format {number}; this version of unitscope reads {_FORMAT}")
        query = "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        if dict(connection.execute(query)) != _TABLES:
            raise AtlasError(f"{path.name} holds other tables than a file of annotations has")
        if connection.execute("SELECT weights_digest FROM atlas").fetchall() != [(self._weights_digest,)]:
            raise AtlasError(
                f"{path.name} is about another network than the atlas {self._atlas}: its weights differ. "
                "Move it away, or name another folder with --annotations"
            )

    @contextmanager
    def _connected(self, path: Path, mode: str) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode={mode}",
                uri=True,
                timeout=_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                connection.execute("PRAGMA trusted_schema = OFF")
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute(f"PRAGMA max_page_count = {_MOST_BYTES // _PAGE_BYTES}")
                yield connection
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise self._error_of(error, path) from None

    def _error_of(self, error: sqlite3.Error, path: Path) -> Exception:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return BusyError(f"others are writing annotations of the atlas {self._atlas}: try again", retry_after_s=1)
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            return self._read_only()
        if name == "SQLITE_FULL":
            return StorageError(
                f"nothing is written: {path.name} holds at most {_MOST_BYTES:,} bytes, or the disk is full"
            )
        if name.startswith("SQLITE_IOERR"):
            return StorageError(f"cannot write {path.name}: {error}")
        return AtlasError(f"{path.name} is damaged: {error}")

    def _read_only(self) -> ReadOnlyError:
        return ReadOnlyError(
            f"annotations of the atlas {self._atlas} cannot be written: name a folder for them with --annotations"
        )

    def _is_there(self, path: Path) -> bool:
        """Return whether the file is there; raises AtlasError for what is no plain file, which is not opened."""
        try:
            state = path.lstat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise AtlasError(f"{path.name} cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(state.st_mode):
            raise AtlasError(f"{path.name} is no plain file, so annotations are neither read from it nor written to it")
        if state.st_size > _MOST_BYTES:
            raise AtlasError(f"{path.name} is larger than the {_MOST_BYTES:,} bytes that a file of annotations has")
        return state.st_size > 0  # what was to be the first writing may have been refused
