"""The images that a run would take out of an atlas, and whether it may: nothing leaves that nobody asked to leave."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.corpora.columns import ColumnChoice
from unitscope_pipelines.corpora.listing import Listing, list_corpus
from unitscope_pipelines.corpora.roots import joined, roots_of, whole_addresses
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.sealing.version_images import VersionImages
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.storage.tombstones import present_images
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
    images = present_images(previous, store)
    gone = _unlisted(images, corpus)
    if _is_other(images, previous, corpus):
        why = f"{_named(corpus)} is another corpus than {_named_in(previous)}"
        _refuse(f"{why}, as far as paths and times tell", _unseen(images, corpus), images, previous, config)
    unread = len(corpus.files) - _known_count(images, corpus)
    if gone.num_rows - unread > few(images.num_rows):
        _refuse(f"they are not in {_named(corpus)}", gone, images, previous, config)


def unlisted_count(corpus: Listing, previous: Manifest, store: Store) -> int:
    """Count the images of an atlas that a run over this listing would take out, as far as paths and times tell."""
    images = present_images(previous, store)
    gone: int = (_unseen if _is_other(images, previous, corpus) else _unlisted)(images, corpus).num_rows
    return gone


def left_images(previous: Manifest, store: Store, images: VersionImages, config: IndexConfig) -> LeftImages | None:
    """Return which images of the version before a new one no longer has; raises UsageError if those are too many."""
    before = present_images(previous, store)
    gone = before.filter(pc.invert(pc.is_in(before["image_id"], value_set=images.images["image_id"].combine_chunks())))
    if not config.replace and gone.num_rows > few(before.num_rows):
        _refuse("their files are gone, edited or no longer readable", gone, before, previous, config)
    if not gone.num_rows:
        return None
    return LeftImages(count=gone.num_rows, first=_first_paths(gone), version=previous.version)


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


def _unlisted(images: pa.Table, corpus: Listing) -> pa.Table:
    """Return the images none of whose files is listed by its path."""
    listed = corpus.files["path"].combine_chunks()
    others = images["other_paths"].combine_chunks()
    found = pc.is_in(pc.list_flatten(others), value_set=listed)
    copied = pc.unique(pc.list_parent_indices(others).filter(found)).cast(pa.int64())
    is_copied = pc.is_in(pa.array(range(images.num_rows), pa.int64()), value_set=copied)
    return images.filter(pc.invert(pc.or_(pc.is_in(images["path"], value_set=listed), is_copied)))


def _unseen(images: pa.Table, corpus: Listing) -> pa.Table:
    """Return path and time of those images of whose path no file is listed, or one of another time."""
    key = ["path", "modified_ns"]
    return images.select(key).join(corpus.files.select(key), keys=key, join_type="left anti")


def _known_count(images: pa.Table, corpus: Listing) -> int:
    """Count the listed files whose path is that of an image of the atlas."""
    paths = pa.chunked_array([*images["path"].chunks, pc.list_flatten(images["other_paths"]).combine_chunks()])
    return int(pc.sum(pc.is_in(corpus.files["path"], value_set=paths.combine_chunks())).as_py() or 0)


def _is_other(images: pa.Table, previous: Manifest, corpus: Listing) -> bool:
    """Tell whether a corpus of the atlas is not among those of a listing, nor its files by another name."""
    lacks_root = not {root.root for root in roots_of(previous)} <= {root.root for root in corpus.roots}
    return lacks_root and not _holds_files(images, previous, corpus)


def _holds_files(images: pa.Table, previous: Manifest, corpus: Listing) -> bool:
    """Tell whether a listing has the very file of every image, by whatever path."""
    listed = pa.array(whole_addresses(corpus.files["address"], corpus.root), pa.string())
    wanted = pa.array(whole_addresses(images["address"], previous.corpus.root), pa.string())
    return bool(pc.all(pc.is_in(wanted, value_set=listed)).as_py())


def _refuse(why: str, gone: pa.Table, images: pa.Table, previous: Manifest, config: IndexConfig) -> NoReturn:
    """Raise UsageError that says which images would leave, which version has them, and what would do."""
    lost = f"{gone.num_rows} of its {images.num_rows} images would leave"
    if gone.num_rows:
        lost += f", first {listing(_first_paths(gone))}"
    limited = " or leave out --limit" if config.limit is not None else ""
    raise UsageError(
        f"{config.atlas} stays as it is: {why}; {lost}. Mount what is missing{limited}; or give --add to take in a "
        f"further corpus, or --replace to let them leave: version {previous.version} keeps them, and unitscope revert "
        "makes it present again"
    )


def _first_paths(images: pa.Table) -> tuple[str, ...]:
    return tuple(sorted(images["path"].to_pylist())[:_NAMED])


def _named(corpus: Listing) -> str:
    return listing((root.corpus for root in corpus.roots), most=3)


def _named_in(manifest: Manifest) -> str:
    return listing((root.corpus for root in roots_of(manifest)), most=3)
