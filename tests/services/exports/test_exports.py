"""What is taken elsewhere: the DuckDB catalog, tables, and pages that need no server."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

import unitscope
from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from tests.services.pages.test_pages import Elements
from tests.unitscope.test_cli import invoke, run_in_process
from unitscope_pipelines.derived.sql_catalog import write_catalog
from unitscope_pipelines.indexing.compaction import compact
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.formats import csv_table
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.exports.bundle import write_bundle
from unitscope_services.exports.tables import write_tables
from unitscope_services.web.app import Settings, create_app

UNITS = ("_blocks.0:3", "_blocks.5:3", "_blocks.5:4", "_blocks.15:200")


@pytest.fixture(scope="module")
def catalog(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of the tiny atlas."""
    path = tmp_path_factory.mktemp("catalog") / "catalog.duckdb"
    assert invoke("catalog", tiny_atlas, "--out", path).exit_code == 0
    return path


@pytest.fixture(scope="module")
def bundle(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of some units of the tiny atlas."""
    out = tmp_path_factory.mktemp("bundle") / "pages"
    result = invoke("export", tiny_atlas, "--format", "html", "--out", out, "--units", ",".join(UNITS), "--json")
    assert json.loads(result.stdout) == {"folder": str(out), "units": 4, "exemplars": 36, "missing": []}
    return out


def test_a_catalog_may_have_the_name_of_its_atlas(tiny_atlas: Path, tmp_path: Path) -> None:
    write_catalog([tiny_atlas], tmp_path / f"{tiny_atlas.name}.duckdb")
    with duckdb.connect(str(tmp_path / f"{tiny_atlas.name}.duckdb"), read_only=True) as views:
        assert views.execute("SELECT count(*) FROM images").fetchone() == (40,)


def test_the_catalog_answers_top_patches_as_the_command_does(catalog: Path, tiny_atlas: Path) -> None:
    notebook = unitscope.open_atlas(str(tiny_atlas))
    with duckdb.connect() as database:
        database.execute(f"ATTACH '{catalog}' AS atlas (READ_ONLY)")
        for unit in UNITS:
            layer, _, channel = unit.rpartition(":")
            expected = notebook.top(unit, k=12).to_pylist()
            for schema in ("atlas", "atlas.tiny"):
                question = f"FROM {schema}.top_patches('{layer}', {channel}, 12)"
                assert database.sql(question).to_arrow_table().to_pylist() == expected


@pytest.mark.parametrize("layer", ["_blocks.0", "_blocks.15"])
def test_the_catalog_explains_an_image_as_the_command_does(layer: str, catalog: Path, tiny_atlas: Path) -> None:
    notebook = unitscope.open_atlas(str(tiny_atlas))
    with duckdb.connect() as database:
        database.execute(f"ATTACH '{catalog}' AS atlas (READ_ONLY)")
        for path in ("blobs/003.jpg", "stripes/004.jpg"):
            expected = notebook.explain(path, layer=layer, k=30).to_pylist()
            found = database.sql(f"FROM atlas.explain('{layer}', '{path}', 30)").to_arrow_table().to_pylist()
            assert [row | {"activation": None} for row in found] == [row | {"activation": None} for row in expected]
            assert [row["activation"] for row in found] == pytest.approx([row["activation"] for row in expected])
        with pytest.raises(duckdb.Error, match="this atlas has no layer nowhere"):
            database.sql(f"FROM atlas.explain('nowhere', '{path}', 3)")


def test_the_catalog_is_read_by_others_while_the_server_answers(catalog: Path, tiny_atlas: Path) -> None:
    open_and_ask = f"duckdb.connect('{catalog}', read_only=True).execute('SELECT count(*) FROM images').fetchone()"
    ask = f"import duckdb; print({open_and_ask})"
    with (
        TestClient(create_app(Settings(atlases=(tiny_atlas,), corpora=recorded_corpora(tiny_atlas))), ORIGIN) as client,
        duckdb.connect(catalog, read_only=True),
    ):
        other = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=True)
        assert other.stdout.strip() == "(40,)"
        assert client.get("/api/v1/atlases/tiny").json()["images"] == 40
        assert invoke("catalog", tiny_atlas, "--out", catalog).exit_code == 0
    assert [path.name for path in catalog.parent.iterdir()] == [catalog.name]


def test_the_catalog_holds_every_unit_and_says_what_is_missing(catalog: Path) -> None:
    with duckdb.connect(catalog, read_only=True) as database:
        assert database.execute("SELECT count(*) FROM ranked JOIN units USING (layer, unit)").fetchone() == (16640,)
        counts = database.execute("SELECT sum(image_count) FROM unit_histogram('_blocks.5', 3)").fetchone()
        assert counts == (40,)
        assert database.execute("FROM unit_labels('_blocks.5', 3)").fetchall()
        with pytest.raises(duckdb.IOException, match=r"this atlas has no unit _blocks\.5:80"):
            database.sql("FROM top_patches('_blocks.5', 80, 9)")


def test_a_catalog_names_each_atlas_once(tiny_atlas: Path, tmp_path: Path) -> None:
    result = run_in_process("catalog", str(tiny_atlas), str(tmp_path / "none"), "--out", str(tmp_path / "c.duckdb"))
    assert result.returncode == 5
    other = tmp_path / "other" / "tiny"
    other.mkdir(parents=True)
    shutil.copy(tiny_atlas / "manifest.json", other)
    with pytest.raises(UsageError, match="'tiny' cannot name one atlas"):
        write_catalog([tiny_atlas, other], tmp_path / "c.duckdb")
    assert not (tmp_path / "c.duckdb").exists()


@pytest.mark.parametrize("style", ["parquet", "csv", "arrow"])
def test_exported_tables_hold_the_rows_of_top(style: str, tiny_atlas: Path, tmp_path: Path) -> None:
    words = ["export", tiny_atlas, "--format", style, "--out", tmp_path / "out", "-k", 5]
    for unit in UNITS:
        words += ["--units", unit]
    assert invoke(*words).exit_code == 0
    read = {"parquet": pq.read_table, "csv": pa.csv.read_csv, "arrow": lambda path: pa.ipc.open_file(path).read_all()}
    table = read[style](tmp_path / "out" / f"exemplars.{style}")
    notebook = unitscope.open_atlas(str(tiny_atlas))
    expected = pa.concat_tables(notebook.top(unit, k=5) for unit in UNITS)
    names = [name for name in expected.column_names if name != "duplicate_group"]
    expected = csv_table(expected) if style == "csv" else expected
    assert table.select(names).to_pylist() == expected.select(names).to_pylist()
    found = {f"{layer}:{channel}" for layer, channel in zip(*table.select(["layer", "channel"]).columns, strict=True)}
    assert found == set(UNITS)
    units = read[style](tmp_path / "out" / f"units.{style}")
    assert units["maximum"].to_pylist() == [notebook.top(unit, k=1)["activation"][0].as_py() for unit in UNITS]


def test_an_export_that_fails_half_way_leaves_nothing(tiny_atlas: Path, tmp_path: Path) -> None:
    units = [UnitId("_blocks.0", 3), UnitId("_blocks.0", 99)]
    for write in (write_bundle, partial(write_tables, file_format="csv")):
        with pytest.raises(NotFoundError, match="units 0 to 15"):
            write(Atlas(tiny_atlas), units, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


def test_an_export_never_replaces_what_is_there(tiny_atlas: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = run_in_process("export", str(tiny_atlas), "--out", str(tmp_path), "--units", UNITS[0])
    assert result.returncode == 2
    assert "is there already" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_every_link_of_the_bundle_leads_to_a_file_in_it(bundle: Path) -> None:
    pages = sorted(bundle.rglob("*.html"))
    assert len(pages) == 1 + 3 + 4
    for page in pages:
        elements = Elements(page.read_text())
        assert "script" not in [tag for tag, _ in elements.found]
        for address in elements.values("href", "src", "action"):
            if not address.startswith("#"):
                assert not address.startswith(("/", "http")), f"{page} leads to {address}"
                target = (page.parent / unquote(address)).resolve()
                assert target.is_file(), f"{page} leads to {address}"
                assert target.is_relative_to(bundle.resolve())


def test_the_bundle_shows_the_patches_and_figures_of_the_served_pages(bundle: Path, tiny_atlas: Path) -> None:
    elements = Elements((bundle / "units" / "_blocks.5" / "3.html").read_text())
    pictures = [attrs["src"] for tag, attrs in elements.found if tag == "img" and "patches" in str(attrs["src"])]
    assert len(pictures) == 9
    assert "../../units/_blocks.5/4.html" in elements.values("href")
    with TestClient(
        create_app(Settings(atlases=(tiny_atlas,), corpora=recorded_corpora(tiny_atlas))), ORIGIN
    ) as client:
        served = Elements(client.get("/a/tiny/layers/_blocks.5/units/3").text)
        sources = [attrs["src"] for tag, attrs in served.found if tag == "img" and "/patches/" in str(attrs["src"])]
        for here, there in zip(pictures, sources, strict=True):
            own = bundle / "units" / "_blocks.5" / str(here)
            assert own.resolve().read_bytes() == client.get(str(there)).content
    assert Image.open(own.resolve()).format == "JPEG"
    figures = [word for word in served.text.split() if word[0].isdigit() and "." in word]
    assert set(figures) <= set(elements.text.split())


def test_removed_images_are_in_no_export_and_in_no_catalog(tiny_atlas: Path, tmp_path: Path) -> None:
    """Views read the tables as they are, so a catalog waits until these hold no removed image."""
    atlas = shutil.copytree(tiny_atlas, tmp_path / "atlas")
    first, *others = unitscope.open_atlas(str(atlas)).top(UNITS[1], k=10)["image_id"].to_pylist()
    remove(atlas, [first])
    done = invoke("export", atlas, "--out", tmp_path / "out", "--units", UNITS[1])
    assert pq.read_table(tmp_path / "out" / "exemplars.parquet")["image_id"].to_pylist() == others
    assert "still count 1 removed images" in done.stderr
    write_bundle(Atlas(atlas), [UnitId.parse(UNITS[1])], tmp_path / "pages")
    pages = "".join(path.read_text() for path in (tmp_path / "pages").rglob("*.html"))
    assert first not in pages
    assert "statistics still count 1 removed image" in pages
    with pytest.raises(UsageError, match="atlas still hold 1 removed images; run unitscope compact"):
        write_catalog([atlas], tmp_path / "catalog.duckdb")
    compact(atlas, 1, lambda _: None)
    write_catalog([atlas], tmp_path / "catalog.duckdb")
    layer, _, channel = UNITS[1].rpartition(":")
    with duckdb.connect(tmp_path / "catalog.duckdb") as database:
        top = f"SELECT image_id FROM top_patches('{layer}', {channel}, 9)"
        assert [image_id for (image_id,) in database.execute(top).fetchall()] == others
