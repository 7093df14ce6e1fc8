"""Figures for Prometheus, and the dashboard that shows them."""

import json
import re
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.pictures import recorded_corpora, write_corpus
from tests.services.conftest import ORIGIN
from tests.unitscope.test_cli import run_in_process
from unitscope.run_metrics import published
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_schemas.progress import Progress
from unitscope_services.web.app import Settings, create_app

ROOT = Path(__file__).parent.parent.parent
WORDS = {"sum", "rate", "by", "le", "histogram_quantile", "max", "time", "route", "status", "exact"}


def names_in(text: str) -> dict[str, float]:
    """The sum of all values of each metric."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


@pytest.fixture(scope="module")
def api_figures(tiny_atlas: Path) -> dict[str, float]:
    """What /metrics gives after a question and a search."""
    with TestClient(
        create_app(Settings(atlases=(tiny_atlas,), corpora=recorded_corpora(tiny_atlas))), ORIGIN
    ) as client:
        client.get("/api/v1/atlases/tiny/layers/_blocks.5/units/3/patches")
        image = client.get("/api/v1/atlases/tiny/images?path=blobs/001.jpg").json()["rows"][0]["image_id"]
        client.get(f"/api/v1/atlases/tiny/images/{image}/neighbors")
        return names_in(client.get("/metrics").text)


@pytest.fixture(scope="module")
def index_figures(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> dict[str, float]:
    """What an index run has given before its end."""
    folder = tmp_path_factory.mktemp("figures")
    corpus = write_corpus(folder / "corpus", 8)
    config = IndexConfig(
        corpus=str(corpus), atlas=str(folder / "a"), layers=("_blocks.0",), batch_size=4, shard_size=16
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with published(lambda progress: None, "127.0.0.1", port) as report:
        index(config, report)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    return names_in(text)


@pytest.mark.long
def test_an_index_run_counts_files_skipped_and_rows(index_figures: dict[str, float]) -> None:
    assert index_figures["unitscope_index_files_total"] == 10
    assert index_figures["unitscope_index_skipped_files_total"] == 1
    assert index_figures["unitscope_index_rows_total"] == 8 * 16
    assert index_figures["unitscope_index_pending_files_count"] == 0
    assert index_figures["unitscope_index_stage_done_ratio"] == 3.0


def test_a_search_is_counted(api_figures: dict[str, float]) -> None:
    assert api_figures["unitscope_search_seconds_count"] == 1


def test_every_expression_of_the_dashboard_names_live_figures(
    api_figures: dict[str, float], index_figures: dict[str, float]
) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/unitscope.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 12
    shown = set()
    for expression in expressions:
        bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
        names = set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_]*", bare)) - WORDS
        assert names, expression
        assert names <= api_figures.keys() | index_figures.keys(), expression
        shown |= names
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in {*api_figures, *index_figures}}
    forgotten = {name for name in families if not any(one.startswith(name) for one in shown)}
    assert forgotten == set()


def test_names_of_figures_end_in_units(index_figures: dict[str, float]) -> None:
    assert all(re.search(r"_(seconds|bytes|total|count|ratio|created)$", name) for name in index_figures)


def test_a_port_in_use_stops_the_run_before_its_start(tiny_corpus: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ("index", str(tiny_corpus), "--atlas", str(tmp_path / "a"), "--metrics-port", port)
        result = run_in_process(*words)
    assert result.returncode == 2
    assert "choose another --metrics-port" in result.stderr


def test_without_a_port_nothing_listens() -> None:
    told: list[Progress] = []
    with published(told.append, "127.0.0.1", None) as report:
        report(Progress("scan", 1, 2, "files"))
    assert told == [Progress("scan", 1, 2, "files")]
