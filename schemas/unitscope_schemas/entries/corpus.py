"""The corpora of an atlas, what was read of them, and what left."""

from collections.abc import Mapping

from pydantic import Field

from unitscope_schemas.entries.entry import Entry
from unitscope_schemas.layout import ShortDigest


class CorpusRoot(Entry):
    """A corpus that a version takes its pictures from, one of several or the only one."""

    corpus: str
    """What is listed: a folder, or a file or glob in one, by its whole name."""
    root: str
    """Folder or address below which its files lie."""
    prefix: str = ""
    """Name that stands before the paths of its pictures; empty for the first corpus of an atlas."""
    path_column: str | None = None
    """Column of a list that was named for the paths; so the next two for labels and pictures."""
    label_column: str | None = None
    image_column: str | None = None


class CorpusEntry(Entry):
    """The corpus of a version, counted."""

    root: str
    """Folder or address below which addresses of pictures lie that are no whole names."""
    roots: tuple[CorpusRoot, ...] = ()
    """Every corpus that the pictures come from, the first one's root being `root`; empty in manifests of old."""
    image_count: int
    file_count: int
    skipped_count: int
    ignored_count: int
    """Count of other files, which were not read: neither pictures by their names, nor lists or shards."""
    label_count: int
    conflict_count: int = 0
    """Count of images to which files, or rows of a list, give different labels."""
    repeated_count: int = 0
    """Count of rows of lists that name a path again."""
    others: dict[str, int] = Field(default={})
    """How many other files there are of each kind: of a suffix, without one, hidden; empty in atlases made before."""
    notes: list[str] = Field(default=[])
    """Sentences about the corpus for people, such as how it was read and what reading it costs."""

    @property
    def all_others(self) -> dict[str, int]:
        """The other files by kind; where the kinds were not noted, all of them as one."""
        return self.others or ({"of kinds not noted": self.ignored_count} if self.ignored_count else {})

    @property
    def others_text(self) -> str:
        """What other files there are, for people; empty where there is none."""
        return others_text(self.ignored_count, self.others)


class LeftImages(Entry):
    """The images that the version before showed and this one no longer has."""

    count: int
    first: tuple[str, ...]
    """Paths of the first of them."""
    version: ShortDigest
    """Name of the version before, which has them until `gc` deletes it."""


def others_text(count: int, others: Mapping[str, int], most: int = 8) -> str:
    """Return a count of other files with the commonest kinds of them, for people; empty where there is none.

    >>> others_text(352, {".txt": 337, ".nef": 12, "hidden": 3})
    '352 other files (337 .txt, 12 .nef, 3 hidden)'
    """
    if not count:
        return ""
    kinds = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{number} {kind}" for kind, number in kinds[:most]]
    further = sum(number for _, number in kinds[most:])
    named += [f"{further} of {len(kinds) - most} more kinds"] if further else []
    return f"{count} other file{'s' * (count != 1)}" + (f" ({', '.join(named)})" if named else "")
