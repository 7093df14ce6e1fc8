"""The demo's corpus: photographs that installed packages carry, cut into overlapping tiles at several scales."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.vision.images.pictures import open_picture, upright
from unitscope_schemas.errors import CorpusError
from unitscope_schemas.geometry import Box, Size

_PACKAGED = {
    "skimage": (
        "data/astronaut.png data/brick.png data/cell.png data/chelsea.png data/coffee.png data/coins.png "
        "data/grass.png data/gravel.png data/hubble_deep_field.jpg data/ihc.png data/moon.png "
        "data/motorcycle_left.png data/page.png data/retina.jpg data/rocket.jpg data/camera.png"
    ),
    "sklearn": "datasets/images/china.jpg datasets/images/flower.jpg",
}
_SCALES = ((1, 1), (2, 3), (3, 3))
"""Scales of tiles as (n, m): tiles of 1/n of the shorter side, m of them along it; those along the longer side overlap
as much."""
_WHOLE_FROM = 200
"""Number of pictures from which on they are a corpus as they are."""


def packaged_photographs() -> list[tuple[str, Path]]:
    """Return (name, file) of each photograph that the installed packages carry."""
    from importlib.util import find_spec

    photographs = []
    for package, files in _PACKAGED.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise CorpusError(f"the demo's photographs are in the package {package!r}, which is not installed")
        paths = [Path(spec.origin).parent / file for file in files.split()]
        photographs += [(path.stem.replace("_", " "), path) for path in paths if path.is_file()]
    return photographs


def photographs_in(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return (label, file) of each picture below the folders; the label is the sub-folder or else the folder's name."""
    return [
        (file["label"] or folder.name, folder / file["path"])
        for folder in folders
        for file in list_corpus(str(folder)).files.read(["label", "path"]).to_pylist()
    ]


def write_tiles(photographs: Sequence[tuple[str, Path]], corpus: Path) -> int:
    """Write the demo corpus, a sub-folder per label; many pictures are linked as they are, few cut into tiles.

    Returns how many pictures the corpus has. Tiles that are there already are kept.
    """
    count = 0
    for number, (label, path) in enumerate(photographs):
        folder = corpus / label
        folder.mkdir(parents=True, exist_ok=True)
        if len(photographs) >= _WHOLE_FROM:
            link = folder / f"{number:05d}-{path.name}"
            if not link.exists():
                link.symlink_to(path.resolve())
            count += 1
            continue
        whole = upright(open_picture(path.read_bytes()))
        for tile in tile_boxes(Size(whole.height, whole.width)):
            file = folder / f"{path.stem}-{'-'.join(map(str, tile))}.jpg"
            if not file.exists():
                whole.crop((tile.left, tile.top, tile.right, tile.bottom)).save(file, quality=95)
            count += 1
    return count


def tile_boxes(size: Size) -> Iterator[Box]:
    """Return overlapping square tiles at three scales that cover a picture."""
    short, long = min(size), max(size)
    for parts, steps in _SCALES:
        side = short // parts
        along = max(1, round(steps * long / short)) if parts > 1 else 1 + (long > 1.25 * short)
        rows, cols = (along, steps) if size.height > size.width else (steps, along)
        for row in range(rows):
            for col in range(cols):
                top = row * (size.height - side) // max(1, rows - 1)
                left = col * (size.width - side) // max(1, cols - 1)
                yield Box(top, left, top + side, left + side)
