"""The same 500 pictures as every kind of corpus: one atlas, one set of answers, the same patches cut from each."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.corpora import pictures_of, write_list, write_parquet, write_tars
from tests.pictures import recorded_corpora, write_corpus
from tests.services.conftest import ORIGIN
from tests.tables import contents, difference
from unitscope_services.web.app import Settings, create_app

LAYER = "_blocks.5"
OF_KIND = {"path", "address", "metadata"}


def answers(atlas: Path) -> list[object]:
    """What a server says about ten units and three images, and the pictures it cuts."""
    found: list[object] = []
    with TestClient(create_app(Settings(atlases=(atlas,), corpora=recorded_corpora(atlas))), ORIGIN) as client:
        root = f"/api/v1/atlases/{atlas.name}"
        for unit in range(0, 40, 4):
            rows = client.get(f"{root}/layers/{LAYER}/units/{unit}/patches?k=50").json()["rows"]
            found += [without_kind(row) for row in rows]
            for row in rows[:3]:
                patch = client.get(f"{root}/patches/{row['image_id']}.png?unit={LAYER}:{unit}")
                assert patch.headers["content-type"] == "image/png", patch.text
                found.append(patch.content)
        for row in rows[:3]:
            for question in ("units", "neighbors"):
                asked = client.get(f"{root}/images/{row['image_id']}/{question}").json()["rows"]
                found += [without_kind(row) for row in asked]
    return found


def without_kind(row: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on how the corpus is kept."""
    return {name: value for name, value in row.items() if name not in OF_KIND}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_kind_of_corpus_gives_the_atlas_answers_and_patches_of_the_folder(
    pictures_bucket: Any, tmp_path: Path
) -> None:
    folder = write_corpus(tmp_path / "folder", 500)
    pictures = pictures_of(folder)
    for path in folder.rglob("*.*"):
        pictures_bucket.upload_file(str(path), f"folder/{path.relative_to(folder)}")
    corpora = {
        "folder": folder,
        "tars": write_tars(tmp_path / "tars", pictures, 3),
        "parquet": write_parquet(tmp_path / "parquet", pictures),
        "list": write_list(tmp_path / "list.csv", folder),
        "s3": "s3://corpus/folder",
    }
    expected: dict[str, Any] = {}
    for kind, corpus in corpora.items():
        atlas = tmp_path / f"of {kind}" / "atlas"
        options = ["--layers", LAYER, "--batch-size", "16", "--progress", "none"]
        subprocess.run(
            [sys.executable, "-m", "unitscope", "index", str(corpus), "--atlas", str(atlas), *options], check=True
        )
        expected = expected or {"contents": contents(atlas, paths=False), "answers": answers(atlas)}
        assert difference(expected["contents"], contents(atlas, paths=False)) == [], kind
        assert answers(atlas) == expected["answers"], kind
