"""One flipped bit, in any file of an atlas, is found by `verify`, and no reader answers from it."""

import random
import re
import shutil
from pathlib import Path

import pytest

from tests.tables import manifest_of
from unitscope_pipelines.derived.coactivation import InProcess, SealedAtlas
from unitscope_pipelines.derived.compare import compare
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_pipelines.indexing.verification.digests import Digests
from unitscope_pipelines.storage.checked_folder import checked
from unitscope_pipelines.storage.parts import read_manifest
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas.errors import AtlasError, FormatError
from unitscope_schemas.manifest import Manifest

FLIPS = 8


def kind_of(path: str) -> str:
    """What a file is, by its path without layers, versions, shards and numbers."""
    return re.sub(
        r"[0-9a-f]{16,64}|[0-9]{5}-", "*", re.sub(r"(peaks|ranked|embeddings|units|patches)/[^/]+", r"\1", path)
    )


@pytest.fixture(scope="module")
def atlas(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas with an earlier version, removed images, a comparison and co-activation."""
    copied = tmp_path_factory.mktemp("flips") / "atlas"
    shutil.copytree(tiny_atlas, copied)
    sealed = SealedAtlas.present(copied)
    compare(sealed, sealed, InProcess(lambda done, total: None), ("_blocks.5", "_blocks.5"))
    remove(copied, ["blobs/003.jpg"])
    return copied


def faults_of(atlas: Path, manifest: Manifest) -> set[str]:
    return Digests(store_of(atlas), manifest).broken


def test_an_atlas_of_every_kind_of_file_is_whole(atlas: Path) -> None:
    digests = Digests(store_of(atlas), manifest_of(atlas))
    assert (digests.faults, digests.unsealed) == ([], [])


def test_every_flipped_bit_is_found_and_no_reader_holds_its_part(atlas: Path) -> None:
    manifest = manifest_of(atlas)
    kinds: dict[str, list[str]] = {}
    for file in sorted(path for path in atlas.rglob("*") if path.is_file() and path.stat().st_size):
        path = file.relative_to(atlas).as_posix()
        kinds.setdefault(kind_of(path), []).append(path)
    parts = {part.path: part for part in manifest.parts()}
    assert len(kinds) >= 18, sorted(kinds)
    generator, reader = random.Random(17), checked(store_of(atlas))
    for kind, paths in kinds.items():
        for _ in range(FLIPS):
            path = generator.choice(paths)
            whole = (atlas / path).read_bytes()
            changed = bytearray(whole)
            changed[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
            (atlas / path).write_bytes(changed)
            try:
                if path == "manifest.json":
                    with pytest.raises((AtlasError, FormatError)):
                        read_manifest(store_of(atlas))
                else:
                    assert path in faults_of(atlas, manifest), f"a flip in {kind} is not seen"
                if path in parts:
                    with pytest.raises(AtlasError, match=re.escape(path)):
                        reader.hold(parts[path])
            finally:
                (atlas / path).write_bytes(whole)
    assert faults_of(atlas, manifest) == set()
