"""The scripts of examples/, run as they stand on a few pictures."""

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.pictures import recorded_corpora, write_corpus
from tests.unitscope.test_client import running
from unitscope_pipelines.derived.sql_catalog import write_catalog
from unitscope_services.server.settings import Settings

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def example(name: str) -> Callable[..., None]:
    """The function `main` of an example."""
    main: Callable[..., None] = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    return main


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("examples") / "pictures", 8)


@pytest.fixture(scope="module")
def address(tiny_atlas: Path) -> Iterator[str]:
    """A server over the tiny atlas."""
    yield from running(Settings(atlases=(tiny_atlas,), corpora=recorded_corpora(tiny_atlas)))


@pytest.mark.long
def test_a_folder_of_pictures_becomes_an_atlas_and_a_row_of_patches(
    ray_session: None, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("folder_of_pictures")(str(pictures), str(tmp_path / "atlas"), str(tmp_path / "patches.png"))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 9  # eight pictures, and where the patches are
    with Image.open(tmp_path / "patches.png") as sheet:
        assert sheet.size == (8 * 160, 160)
        assert len(sheet.getcolors(maxcolors=2**24) or ()) > 100


@pytest.mark.long
def test_a_cluster_says_what_a_run_costs_and_what_each_node_did(
    ray_session: None, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("on_a_cluster")(str(pictures), str(tmp_path / "atlas"), "auto")  # the session's own cluster
    printed = capsys.readouterr().out
    assert "scanned 10 files" in printed
    assert "holds 8 images" in printed


@pytest.mark.long
def test_a_dashboard_is_made_of_tables_json_and_sql(
    address: str, tiny_atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog, page = tmp_path / "catalog.duckdb", tmp_path / "page.html"
    write_catalog([tiny_atlas], catalog)
    example("dashboard")(address, str(catalog), "_blocks.5", str(page))
    assert "units of _blocks.5" in capsys.readouterr().out
    text = page.read_text()
    assert text.count("<table>") == 4
    assert "blobs" in text
    assert "mean rank" in text


@pytest.mark.long
def test_a_notebook_shows_pictures(tiny_atlas: Path) -> None:
    """Every cell runs in a kernel of its own; atlas, unit, patches and similar units come with their pictures."""
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("demo/atlas", str(tiny_atlas)).replace("_blocks.15:290", "_blocks.5:3")
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    pages = [str(data["text/html"]) for data in shown if "text/html" in data]
    assert [page.count('src="data:image/') for page in pages[:4]] == [6, 9, 12, 5]
    assert all("image/png" in data for data in shown if "PIL" in data["text/plain"])
    assert len(shown) == 6
