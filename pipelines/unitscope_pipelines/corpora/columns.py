"""Columns of a list or Parquet file for path, label and picture: those that are named, else by their usual names."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unitscope_schemas.errors import CorpusError, listing

PATH = "path"
LABEL = "label"
_PATHS = (
    *(PATH, "file_path", "filepath", "image_path", "img_path", "file_name", "filename", "image_file", "image_name"),
    *("image_filename", "image", "img", "file", "picture", "relative_path", "relpath", "uri", "url"),
)
"""Usual names of the column of paths, the first that there is counts."""
_LABELS = (LABEL, "labels", "class", "class_name", "classname", "category", "category_name")
_PICTURES = (
    *("image", "img", "picture", "photo", "pixel_values", "jpg", "jpeg", "png", "webp", "image_bytes", "img_bytes"),
    *("content", "bytes", "data"),
)
"""Usual names of the column of pictures, where several columns hold pictures."""


class NoPathColumnError(CorpusError):
    """A list has no column that is named as columns of paths usually are."""


@dataclass(frozen=True)
class ColumnChoice:
    """The columns that a person names; None: by usual names and, of pictures, by content."""

    path: str | None = None
    label: str | None = None
    image: str | None = None

    def path_column(self, names: Sequence[str], what: str) -> str:
        """Return the column of paths; raises CorpusError, which begins with `what`, if there is none."""
        found = _named(self.path, names, what) or usual(names, _PATHS)
        if found is None:
            raise NoPathColumnError(
                f"{what} has no column 'path', nor another usual name of it; it has {listing(names) or 'none'}: name "
                "the column of paths by --path-column"
            )
        return found

    def label_column(self, names: Sequence[str], what: str) -> str | None:
        """Return the column of labels, None if there is none; raises CorpusError if the named one is missing."""
        return _named(self.label, names, what) or usual(names, _LABELS)

    def image_column(self, names: Sequence[str], of_pictures: Sequence[str], what: str) -> str:
        """Return the column of pictures among those that hold some; raises CorpusError where it cannot be told."""
        named = _named(self.image, names, what)
        found = named or (of_pictures[0] if len(of_pictures) == 1 else usual(of_pictures, _PICTURES))
        if found is None:
            raise CorpusError(
                f"{what} has several columns of pictures ({listing(of_pictures)}); name one by --image-column"
            )
        return found


USUAL = ColumnChoice()
"""No column is named: usual names and content decide."""


def usual(names: Iterable[str], known: Sequence[str]) -> str | None:
    """Return the name that comes first among the usual ones, written so or in other case; None if there is none."""
    names = list(names)
    for name in known:
        found = name if name in names else next((other for other in names if other.casefold() == name), None)
        if found is not None:
            return found
    return None


def check_once(names: Iterable[str], what: str) -> None:
    """Raise CorpusError if two columns have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise CorpusError(f"{what} has several columns of the name {twice[0]!r}; rename all but one")


def _named(column: str | None, names: Sequence[str], what: str) -> str | None:
    if column is not None and column not in names:
        raise CorpusError(f"{what} has no column {column!r}; it has {listing(names) or 'none'}")
    return column
