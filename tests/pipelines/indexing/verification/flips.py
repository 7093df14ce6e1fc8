"""Flipped bits in every kind of file of an atlas; run as a module it writes docs/flips.md.

Each flip is one bit of one file. `verify` is to find it, and a reader that uses the file is to refuse it.
"""

import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.pictures import blobs
from tests.tables import manifest_of
from unitscope_pipelines.derived.coactivation import InProcess, SealedAtlas, open_coactivation
from unitscope_pipelines.derived.compare import compare, read_comparison
from unitscope_pipelines.derived.visuals import NewPicture, read_picture, read_visual, write_visual
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_pipelines.indexing.verification.digests import Digests
from unitscope_pipelines.storage.checked_folder import checked
from unitscope_pipelines.storage.parts import read_manifest
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas.answers.visuals import VisualKey
from unitscope_schemas.errors import FormatError, UnitscopeError
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.units import UnitId
from unitscope_schemas.versions import read_version

PAGE = Path(__file__).parents[4] / "docs" / "flips.md"
FLIPS = 64
"""Bits that are flipped of each kind of file for the page."""
UNREAD = ("receipts", "layers-", "images/shard", "skipped/shard", "files/", "embeddings/")
"""Beginnings of paths that only index runs and `verify` read."""


@dataclass
class FlipCount:
    """What became of the flips in one kind of file."""

    kind: str
    flips: int = 0
    found: int = 0
    read: int = 0
    """Flips in files that a reader uses."""
    refused: int = 0


def with_every_kind(atlas: Path) -> Path:
    """Give a sealed atlas an earlier version, removed images, a comparison, co-activation and a picture of a unit."""
    store, manifest = store_of(atlas), manifest_of(atlas)
    layer = manifest.layers[0].spec.name
    key = VisualKey(
        atlas_key=manifest.atlas_key, kind="optimised", layer=layer, channel=0, method="a", settings={}, seed=0
    )
    write_visual(store, key, NewPicture(Image.new("RGB", (8, 8), "red"), activation=1.0))
    sealed = SealedAtlas.present(atlas)
    compare(sealed, sealed, InProcess(lambda done, total: None), (layer, layer))
    remove(atlas, [version_images(manifest, store, ["path"])["path"][0].as_py()])
    return atlas


def kind_of(path: str) -> str:
    """Return what a file is, by its path without layers, versions, shards and numbers."""
    plain = re.sub(r"(peaks|ranked|embeddings|units|patches|fields)/[^/]+/", r"\1/", path)
    plain = re.sub(r"units/.+-[0-9a-f]{16}[.]", "units/*.", re.sub(r"visuals/[^/]+/[^/]+/", "visuals/", plain))
    return re.sub(r"[0-9a-f]{16,64}|[0-9]{5}-", "*", plain)


def flipped(atlas: Path, count: int, seed: int = 17) -> Iterator[FlipCount]:
    """Flip so many bits of each kind of file, one at a time, and count what is found and refused."""
    manifest = manifest_of(atlas)
    kinds: dict[str, list[str]] = {}
    for file in sorted(path for path in atlas.rglob("*") if path.is_file() and path.stat().st_size):
        path = file.relative_to(atlas).as_posix()
        kinds.setdefault(kind_of(path), []).append(path)
    generator = random.Random(seed)
    for kind, paths in kinds.items():
        counted = FlipCount(kind)
        for _ in range(count):
            path = generator.choice(paths)
            whole = (atlas / path).read_bytes()
            changed = bytearray(whole)
            changed[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
            (atlas / path).write_bytes(changed)
            counted.flips += 1
            counted.found += is_found(atlas, manifest, path)
            if not path.startswith(UNREAD):
                counted.read += 1
                counted.refused += is_refused(atlas, manifest, path)
            (atlas / path).write_bytes(whole)
        yield counted


def is_found(atlas: Path, manifest: Manifest, path: str) -> bool:
    """Tell whether `verify` names the file, or ends at its manifest."""
    try:
        read_manifest(store_of(atlas))
    except (UnitscopeError, FormatError):
        return path == "manifest.json"
    named = Digests(store_of(atlas), manifest).broken
    return path in named or path.removesuffix(".png") + ".json" in named


def is_refused(atlas: Path, manifest: Manifest, path: str) -> bool:
    """Tell whether the reader of the file raises an error instead of answering from it."""
    store = checked(store_of(atlas))
    parts = {part.path: part for part in manifest.parts()}
    stem = Path(path).stem
    try:
        if path in parts:
            store.hold(parts[path])
        elif path == "manifest.json":
            read_manifest(store)
        elif path.startswith("versions/"):
            read_version(store, stem)
        elif path.startswith("kin/"):
            open_coactivation(store, str(Path(path).with_suffix(".parquet")))
        elif path.startswith("comparisons/"):
            read_comparison((atlas / path).read_bytes(), path)
        elif path.startswith("visuals/"):
            _, layer, channel, _ = path.split("/")
            read_picture(store, read_visual(store, UnitId(layer, int(channel)), stem))
    except UnitscopeError:
        return True
    return False


def page(counts: list[FlipCount]) -> str:
    """Return docs/flips.md."""
    lines = [
        "# One flipped bit",
        "*Made by `python -m tests.pipelines.indexing.verification.flips`.*",
        f"In each kind of file of an atlas {counts[0].flips} bits were flipped, one at a time, at random places. "
        "*Found* is by `unitscope verify`, which names the file; *refused* is by a reader that uses the file: "
        "command, server or program raises an error that names it, and gives no row. A dash: no reader uses it, "
        "only index runs and `verify`.",
        "| file | flips | found | refused |\n|---|--:|--:|--:|\n"
        + "\n".join(
            f"| `{one.kind}` | {one.flips} | {one.found} | {one.refused if one.read else '–'} |" for one in counts
        ),
    ]
    return "\n\n".join(lines) + "\n"


def main() -> None:
    """Make a small atlas of every kind of file, flip bits in it, and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, atlas = Path(folder, "corpus"), Path(folder, "atlas")
        corpus.mkdir()
        for number in range(24):
            blobs(number, 64, 64).save(corpus / f"{number:02d}.png")
        (corpus / "broken.png").write_bytes(b"no picture")
        config = IndexConfig(
            corpus=str(corpus), atlas=str(atlas), layers=("_blocks.0",), batch_size=8, workers=1, field_exemplars=0
        )
        index(config, lambda _: None)
        shutil.rmtree(atlas / "tmp", ignore_errors=True)
        PAGE.write_text(page(list(flipped(with_every_kind(atlas), FLIPS))))


if __name__ == "__main__":
    main()
