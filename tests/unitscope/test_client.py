"""The client of a running server: the tables and the errors of an atlas opened here."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

import unitscope
from tests.pictures import recorded_corpora
from tests.services.conftest import key_file  # noqa: F401
from unitscope.client import Client
from unitscope.opened_atlas import OpenedAtlas
from unitscope_schemas.errors import AccessError, BusyError, NotFoundError, PictureError, UnitscopeError, UsageError
from unitscope_services.web.app import Settings, create_app


@pytest.fixture(scope="module")
def address(tiny_atlas: Path) -> Iterator[str]:
    """A server over the tiny atlas, on a port of its own."""
    yield from running(Settings(atlases=(tiny_atlas,), corpora=recorded_corpora(tiny_atlas)))


def running(settings: Settings) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return unitscope.Client(address)


@pytest.fixture(scope="module")
def notebook(tiny_atlas: Path) -> OpenedAtlas:
    return unitscope.open_atlas(str(tiny_atlas))


@pytest.mark.parametrize(
    "question",
    [
        lambda atlas: atlas.layers(),
        lambda atlas: atlas.units("_blocks.5", sort="-maximum"),
        lambda atlas: atlas.top("_blocks.5:3"),
        lambda atlas: atlas.top(
            "_blocks.5:3", k=20, quantile=(0.1, 0.9), label="blobs", order="asc", duplicates="expand"
        ),
        lambda atlas: atlas.top("_blocks.5:3", k=2, per_image=3),
        lambda atlas: atlas.labels("_blocks.5:3"),
        lambda atlas: atlas.optimise("_blocks.0:3", steps=2, seed=9),
        lambda atlas: atlas.optimise("282", steps=1, objective="class"),
        lambda atlas: atlas.optimise("_blocks.0", steps=1, objective="direction", direction=np.linspace(-1, 1, 16)),
        lambda atlas: atlas.project("_blocks.0:3", method="guided", k=2),
        lambda atlas: atlas.visualisations("_blocks.0:3"),
        lambda atlas: atlas.project("_blocks.0:3", method="guided", k=2),
        lambda atlas: atlas.filters(),
        lambda atlas: atlas.labels("_blocks.5:3", ranks=7),
        lambda atlas: atlas.selectivity("_blocks.5:3"),
        lambda atlas: atlas.selective(label="blobs", layer="_blocks.5"),
        lambda atlas: atlas.bands("_blocks.5:3", bands=4, k=2),
        lambda atlas: atlas.facets("_blocks.5:3"),
        lambda atlas: atlas.images(label="blobs"),
        lambda atlas: atlas.skipped(),
        lambda atlas: atlas.histogram("_blocks.5:3", bins=16),
        lambda atlas: atlas.eigen("_blocks.5:3", k=30, components=3, size=20),
        lambda atlas: atlas.similar("_blocks.5:3", by="exemplars", among="_blocks.15"),
        lambda atlas: atlas.explain("blobs/001.jpg", layer="_blocks.0", k=5),
        lambda atlas: atlas.explain("blobs/001.jpg", k=5, label="stripes"),
        lambda atlas: atlas.trace("_blocks.5:3", image="blobs/001.jpg"),
        lambda atlas: atlas.digests(atlas.images(k=1)["image_id"][0].as_py()[:16]),
        lambda atlas: atlas.neighbors("blobs/001.jpg", k=3, label="stripes"),
        lambda atlas: atlas.neighbors("blobs/001.jpg", k=3, exact=True),
        lambda atlas: atlas.neighbors("stripes/000.jpg", box=(10, 10, 80, 90)),
    ],
)  # fmt: skip
def test_the_client_gives_the_tables_of_the_opened_atlas(question: Any, client: Client, notebook: OpenedAtlas) -> None:
    assert question(client).equals(question(notebook))
    assert question(client).num_rows > 0


def test_eigen_patches_come_as_shares(client: Client, notebook: OpenedAtlas) -> None:
    rows = client.eigen("_blocks.5:3", k=30, components=3, size=20)
    arrays = notebook.eigen_patches("_blocks.5:3", k=30, components=3, size=20)
    assert rows["share"].to_pylist()[1:] == pytest.approx(arrays.shares.tolist())


def test_long_tables_come_page_by_page(client: Client, notebook: OpenedAtlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitscope_schemas.questions.MOST_ROWS", 100)
    assert client.units("_blocks.15").equals(notebook.units("_blocks.15"))


@pytest.mark.parametrize("fields", [{}, {"order": "asc"}, {"order": "random", "seed": 3}, {"label": "blobs"}])
def test_more_patches_than_a_page_holds_come_page_by_page(
    client: Client, notebook: OpenedAtlas, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    """Entry 31: `top` beyond a page; also where the rows end within one."""
    expected = {k: notebook.top("_blocks.5:3", k=k, duplicates="expand", **fields) for k in (7, 15, 1001)}
    monkeypatch.setattr("unitscope_schemas.questions.MOST_ROWS", 5)
    for k, rows in expected.items():
        assert client.top("_blocks.5:3", k=k, duplicates="expand", **fields).equals(rows)


def test_ids_are_found_in_upper_case(client: Client, notebook: OpenedAtlas, tiny_atlas: Path) -> None:
    """Entry 25: of images and versions, whole and their beginnings."""
    image_id = notebook.images(k=1)["image_id"][0].as_py()
    for written in (image_id.upper(), image_id[:12].upper(), image_id[:10].capitalize()):
        for atlas in (client, notebook):
            assert atlas.explain(written, k=2).equals(atlas.explain(image_id, k=2))
    version = notebook.manifest.version
    assert unitscope.open_atlas(str(tiny_atlas), version=version[:9].upper()).manifest == notebook.manifest


def test_a_name_that_no_path_can_have_is_not_found_in_words(client: Client, notebook: OpenedAtlas) -> None:
    for name in ("x" * 5000, "a\x00b", "x" * 300 + ".jpg"):
        for atlas in (client, notebook):
            with pytest.raises((NotFoundError, UsageError)):
                atlas.explain(name)


def test_a_picture_file_is_sent_to_the_server(client: Client, notebook: OpenedAtlas, tiny_corpus: Path) -> None:
    file = str(tiny_corpus / "blobs" / "001.jpg")
    assert client.neighbors(file).equals(notebook.neighbors(file))
    with pytest.raises(PictureError):
        client.explain(str(tiny_corpus / "notes.txt"))


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (lambda atlas: atlas.top("_blocks.5:999"), NotFoundError),
        (lambda atlas: atlas.top("nowhere:1"), NotFoundError),
        (lambda atlas: atlas.units("_blocks.5", sort="beauty"), UsageError),
        (lambda atlas: atlas.explain("feedfacefeed"), NotFoundError),
        (lambda atlas: atlas.neighbors("blobs/001.jpg", box=(0, 0, 900, 900)), UsageError),
    ],
)
def test_refusals_are_the_errors_of_the_opened_atlas(
    question: Any, kind: type[UnitscopeError], client: Client, notebook: OpenedAtlas
) -> None:
    with pytest.raises(kind) as here:
        question(notebook)
    with pytest.raises(kind) as there:
        question(client)
    assert str(there.value) == str(here.value)


def test_a_path_that_is_not_in_the_corpus_is_named(client: Client) -> None:
    with pytest.raises(NotFoundError, match=r"no image of this atlas has the path 'no/such.jpg'"):
        client.explain("no/such.jpg")


def test_a_server_with_keys_wants_one(tiny_atlas: Path, key_file: Path) -> None:  # noqa: F811
    for address in running(Settings(atlases=(tiny_atlas,), corpora=recorded_corpora(tiny_atlas), key_file=key_file)):
        with pytest.raises(AccessError, match="needs a key"):
            unitscope.Client(address)
        assert unitscope.Client(address, "reader-key", "tiny").layers().num_rows == 3
        with pytest.raises(NotFoundError, match="there are tiny"):
            unitscope.Client(address, "reader-key", "other")


def test_the_server_compares_units_and_the_tables_are_those_of_the_opened_atlas(
    kin_folder: Path, tmp_path: Path
) -> None:
    for name in ("planted", "permuted", "alien"):
        shutil.copytree(kin_folder / name, tmp_path / name)
    opened = unitscope.open_atlas(str(tmp_path / "planted"))
    for address in running(Settings(atlases=tuple(tmp_path / name for name in ("planted", "permuted", "alien")))):
        client = unitscope.Client(address, atlas="planted")
        with pytest.raises(NotFoundError, match="not computed"):
            client.similar("conv:3")
        client.correlate("conv")
        assert client.similar("conv:3").equals(opened.similar("conv:3"))
        assert client.compare("permuted", layer="conv", layer_b="head").equals(
            opened.compare(str(tmp_path / "permuted"), layer="conv", layer_b="head")
        )
        assert client.comparisons().equals(opened.comparisons())
        with pytest.raises(UsageError, match="no image in common"):
            client.compare("alien")


def test_no_server_is_said_so() -> None:
    with pytest.raises(BusyError, match="is unitscope serve running"):
        unitscope.Client("http://127.0.0.1:9")
    with pytest.raises(UsageError, match="give http"):
        unitscope.Client("atlas/")
