"""The images that a run would take out of an atlas, and whether it may: nothing leaves that nobody asked to leave."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NoReturn

import duckdb
import pyarrow as pa

from unitscope_pipelines.corpora.columns import ColumnChoice
from unitscope_pipelines.corpora.listing import Listing, list_corpus
from unitscope_pipelines.corpora.roots import joined, roots_of, whole_addresses
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.sealing.version_images import VersionImages
from unitscope_pipelines.storage.long_tables.database import batches_of, count_of, spilling_database, take_in
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.storage.tombstones import present_tables
from unitscope_schemas.entries.corpus import CorpusRoot, LeftImages
from unitscope_schemas.errors import CorpusError, UsageError, listing
from unitscope_schemas.manifest import Manifest

_NAMED = 3
"""Count of the images that are named where some leave."""
_FEW_SHARE, _FEW = 10, 100
"""One in so many images of an atlas may leave in one run, and at most so many."""


def few(image_count: int) -> int:
    """Return how many of an atlas's images may leave in a run that is not told to replace them.

    It is one in ten, at least one, at most a hundred, and never all.
    """
    return min(image_count - 1, max(1, min(_FEW, image_count // _FEW_SHARE)))


def corpora_of(named: Listing, previous: Manifest | None, config: IndexConfig) -> Listing:
    """Return what the run's atlas holds after it: the corpus that is named, and those that it has besides.

    Naming one corpus of several means all of them. Raises UsageError for another corpus that is neither added nor put
    in place of the others, CorpusError for one of the others that is not there.
    """
    if previous is None or config.replace:
        return named
    roots = list(roots_of(previous))
    place = _place(named.roots[0], roots, config.add)
    if place is None and not config.add:
        return named
    if place is None:
        return joined([*map(_listed_again, roots), named])
    named = replace(named, roots=(named.roots[0].model_copy(update={"prefix": roots[place].prefix}),))
    return joined([*map(_listed_again, roots[:place]), named, *map(_listed_again, roots[place + 1 :])])


def check_listing(corpus: Listing, previous: Manifest, store: Store, config: IndexConfig) -> None:
    """Raise UsageError where a listing alone shows that too many images would leave, or that it is another corpus.

    A file of a path that no image has may hold any image until it is read: only those beyond their count are sure to
    leave.
    """
    if config.replace:
        return
    with _compared(previous, store, corpus) as compared:
        if compared.is_other:
            why = f"{_named(corpus)} is another corpus than {_named_in(previous)}"
            _refuse(f"{why}, as far as paths and times tell", compared.unseen, previous, config)
        unread = len(corpus.files) - compared.known_count
        gone = compared.unlisted
        if gone.count - unread > few(gone.of):
            _refuse(f"they are not in {_named(corpus)}", gone, previous, config)


def unlisted_count(corpus: Listing, previous: Manifest, store: Store) -> int:
    """Count the images of an atlas that a run over this listing would take out, as far as paths and times tell."""
    with _compared(previous, store, corpus) as compared:
        return (compared.unseen if compared.is_other else compared.unlisted).count


def left_images(previous: Manifest, store: Store, images: VersionImages, config: IndexConfig) -> LeftImages | None:
    """Return which images of the version before a new one no longer has; raises UsageError if those are too many."""
    with spilling_database() as database:
        database.register("now", images.images.reader(["image_id"]))
        before = present_tables(previous, store, ["image_id", "path"])
        take_in(database, "gone", "FROM parts ANTI JOIN now USING (image_id)", before)
        gone = _gone(database, "gone", previous.corpus.image_count)
    if not config.replace and gone.count > few(gone.of):
        _refuse("their files are gone, edited or no longer readable", gone, previous, config)
    if not gone.count:
        return None
    return LeftImages(count=gone.count, first=gone.first, version=previous.version)


def _place(named: CorpusRoot, roots: Sequence[CorpusRoot], is_added: bool) -> int | None:
    """Return which of the corpora is meant: the same one, or unless it is added, the only one in the same folder."""
    same = [place for place, root in enumerate(roots) if root.corpus == named.corpus]
    beside = [place for place, root in enumerate(roots) if root.root == named.root and not is_added]
    return same[0] if same else beside[0] if len(beside) == 1 else None


def _listed_again(root: CorpusRoot) -> Listing:
    """List a corpus that the atlas has besides the one that is named."""
    try:
        columns = ColumnChoice(root.path_column, root.label_column, root.image_column)
        found = list_corpus(root.corpus, choice=columns)
    except CorpusError as error:
        raise CorpusError(
            f"{error}. It is a corpus of this atlas: bring it back, or leave it out with --replace"
        ) from None
    return replace(found, roots=(root,))


@dataclass(frozen=True)
class _Gone:
    """The images of an atlas that would leave."""

    count: int
    of: int
    """The count of the atlas's images."""
    first: tuple[str, ...]
    """First of their paths."""


@contextmanager
def _compared(previous: Manifest, store: Store, corpus: Listing) -> Iterator["_Comparison"]:
    """Open a database of the images of an atlas, and of the files of a listing."""
    with spilling_database() as database:
        columns = ["path", "other_paths", "modified_ns", "address"]
        query = "SELECT row_number() OVER () AS number, * FROM parts"
        count = take_in(database, "images", query, present_tables(previous, store, columns))
        corpus.files.show(database, "listed", "listed")
        database.execute(_PATHS)
        yield _Comparison(database, count, previous, corpus)


@dataclass(frozen=True)
class _Comparison:
    """What a database of the images of an atlas and of the files of a listing tells of them."""

    database: duckdb.DuckDBPyConnection
    image_count: int
    previous: Manifest
    corpus: Listing

    @property
    def unlisted(self) -> _Gone:
        """The images none of whose files is listed by its path."""
        return _gone(self.database, _UNLISTED, self.image_count)

    @property
    def unseen(self) -> _Gone:
        """The images of whose path no file is listed, or one of another time."""
        return _gone(self.database, "images ANTI JOIN listed USING (path, modified_ns)", self.image_count)

    @property
    def known_count(self) -> int:
        """The count of listed files whose path is that of an image of the atlas."""
        return count_of(self.database, "listed SEMI JOIN paths USING (path)")

    @property
    def is_other(self) -> bool:
        """Whether a corpus of the atlas is not among those of the listing, nor its files by another name."""
        lacks_root = not {root.root for root in roots_of(self.previous)} <= {root.root for root in self.corpus.roots}
        return lacks_root and not self._holds_files

    @property
    def _holds_files(self) -> bool:
        """Whether the listing has the very file of every image, by whatever path."""
        stored, listed = batches_of(self.database, "SELECT address FROM images"), self.corpus.files.batches(["address"])
        with self.database.cursor() as writer:
            take_in(writer, "wanted", "FROM parts", _whole(stored, self.previous.corpus.root))
            take_in(writer, "had", "FROM parts", _whole(listed, self.corpus.root))
        return not count_of(self.database, "wanted ANTI JOIN had USING (address)")


_PATHS = """
CREATE TABLE paths AS
SELECT number, path FROM images UNION ALL SELECT number, unnest(other_paths) AS path FROM images"""
_UNLISTED = "images ANTI JOIN (SELECT number FROM paths SEMI JOIN listed USING (path)) USING (number)"


def _whole(batches: Iterable[pa.RecordBatch], root: str) -> Iterator[pa.Table]:
    """Yield the addresses of pictures as they are without a root."""
    for batch in batches:
        yield pa.table({"address": pa.array(whole_addresses(batch["address"], root), pa.string())})


def _gone(database: duckdb.DuckDBPyConnection, query: str, of: int) -> _Gone:
    """Return the images that a query names, of so many."""
    paths = database.execute(f"SELECT path FROM {query} ORDER BY path LIMIT {_NAMED}").fetchall()
    return _Gone(count_of(database, query), of, tuple(path for (path,) in paths))


def _refuse(why: str, gone: _Gone, previous: Manifest, config: IndexConfig) -> NoReturn:
    """Raise UsageError that says which images would leave, which version has them, and what would do."""
    lost = f"{gone.count or 'none'} of its {gone.of} images would leave"
    if gone.count:
        lost += f", first {listing(gone.first)}"
    limited = " or leave out --limit" if config.limit is not None else ""
    raise UsageError(
        f"{config.atlas} stays as it is: {why}; {lost}. Mount what is missing{limited}; or give --add to take in a "
        f"further corpus, or --replace to let them leave: version {previous.version} keeps them, and unitscope revert "
        "makes it present again"
    )


def _named(corpus: Listing) -> str:
    return listing((root.corpus for root in corpus.roots), most=3)


def _named_in(manifest: Manifest) -> str:
    return listing((root.corpus for root in roots_of(manifest)), most=3)
