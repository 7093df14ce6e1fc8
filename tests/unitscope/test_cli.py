"""The command line: its answers, its errors and its exit codes."""

import io
import json
import re
import resource
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

import unitscope
from tests.conftest import TINY_LAYERS
from tests.pictures import blobs, recorded_corpora
from tests.processes import still_running
from tests.services.conftest import ORIGIN
from unitscope.cli import app
from unitscope_schemas.errors import NotFoundError
from unitscope_services.web.app import Settings, create_app
from unitscope_services.web.assets import figure


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def run(*words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unitscope", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, input=stdin)


def test_help_answers_within_a_second() -> None:
    """A wall clock would measure the machine's other work: what takes seconds is not imported, and the process's
    own time is held."""
    code = "import sys; from unitscope.cli import main; main()"
    best = min(own_seconds([sys.executable, "-c", code, "--help"]) for _ in range(3))
    assert best < 1.5
    heavy = "torch", "torchvision", "ray", "faiss", "duckdb", "pyarrow", "numpy", "fastapi", "PIL"
    code = f"import sys, unitscope.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def own_seconds(command: list[str]) -> float:
    """Processor seconds of a command, which must print its help."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "index" in subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.long
def test_fifty_units_have_the_same_nine_everywhere(tiny_atlas: Path) -> None:
    notebook = unitscope.open_atlas(str(tiny_atlas))
    units = [(layer, unit) for layer, count in zip(TINY_LAYERS, (16, 17, 17), strict=True) for unit in range(count)]
    assert len(units) == 50
    with TestClient(
        create_app(Settings(atlases=(tiny_atlas,), corpora=recorded_corpora(tiny_atlas))), ORIGIN
    ) as client:
        for layer, unit in units:
            name, page = f"{layer}:{unit}", f"layers/{layer}/units/{unit}"
            api = f"/api/v1/atlases/tiny/{page}/patches"
            printed = invoke("top", tiny_atlas, name, "--json").stdout
            assert client.get(api).text == printed.rstrip("\n")
            rows = json.loads(printed)["rows"]
            assert len(rows) == 9
            table = notebook.top(name)
            assert table["image_id"].to_pylist() == [row["image_id"] for row in rows]
            assert table["activation"].to_pylist() == [row["activation"] for row in rows]
            for style, read in (("csv", read_csv), ("arrow", read_arrow), ("parquet", pq.read_table)):
                data = invoke("top", tiny_atlas, name, "--format", style).stdout_bytes
                assert read(io.BytesIO(data)).equals(read(io.BytesIO(client.get(f"{api}.{style}").content)))
                assert read(io.BytesIO(data))["activation"].to_pylist() == [row["activation"] for row in rows]
            html = client.get(f"/a/tiny/{page}").text
            shown = dict.fromkeys(re.findall("/patches/([0-9a-f]{64})[.]jpg", html))
            assert list(shown) == [row["image_id"] for row in rows]
            assert all(figure(row["activation"]) in html for row in rows)


def read_csv(file: io.BytesIO) -> pa.Table:
    return pa.csv.read_csv(file)


def read_arrow(file: io.BytesIO) -> pa.Table:
    return pa.ipc.open_file(file).read_all()


def test_crops_and_sheet_are_cut_from_the_originals(tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    result = invoke(
        "top", tiny_atlas, "_blocks.0:3", "--crops", tmp_path / "crops", "--sheet", tmp_path / "s.png", "--json"
    )
    rows = json.loads(result.stdout)["rows"]
    files = sorted((tmp_path / "crops").iterdir())
    assert len(files) == 9
    for row, file in zip(rows, files, strict=True):
        top, left, bottom, right = row["box"]
        whole = Image.open(tiny_corpus / row["path"]).convert("RGB")
        assert Image.open(file).tobytes() == whole.crop((left, top, right, bottom)).tobytes()
    assert Image.open(tmp_path / "s.png").width > 600


def test_writing_crops_deletes_nothing(tiny_atlas: Path, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("mine")
    for unit in ("_blocks.0:3", "_blocks.0:4"):
        assert invoke("top", tiny_atlas, unit, "--crops", tmp_path).exit_code == 0
    assert (tmp_path / "results.csv").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 19


def test_explain_ranks_by_exact_percentile(tiny_atlas: Path) -> None:
    image = json.loads(invoke("top", tiny_atlas, "_blocks.15:7", "--json").stdout)["rows"][0]
    rows = json.loads(invoke("explain", tiny_atlas, image["path"], "-k", "400", "--json").stdout)["rows"]
    assert [row["percentile"] for row in rows] == sorted((row["percentile"] for row in rows), reverse=True)
    found = next(row for row in rows if (row["layer"], row["channel"]) == ("_blocks.15", 7))
    assert (found["percentile"], found["activation"]) == (1.0, image["activation"])
    for row in rows[::40]:
        unit = f"{row['layer']}:{row['channel']}"
        ranked = json.loads(invoke("top", tiny_atlas, unit, "-k", "40", "--duplicates", "expand", "--json").stdout)[
            "rows"
        ]
        assert next(r["percentile"] for r in ranked if r["image_id"] == image["image_id"]) == pytest.approx(
            row["percentile"]
        )


def test_a_picture_is_its_own_nearest_neighbour(tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    for path in ("blobs/001.jpg", "stripes/010.jpg"):
        for reference in (path, tiny_corpus / path):
            first = json.loads(invoke("neighbors", tiny_atlas, reference, "--json").stdout)["rows"][0]
            assert first["path"] == path
            assert 1 - first["score"] < 1e-5
    copy = tmp_path / "copy.png"
    Image.open(tiny_corpus / "blobs/001.jpg").save(copy)
    document = json.loads(invoke("neighbors", tiny_atlas, copy, "--json").stdout)
    assert document["rows"][0]["path"] == "blobs/001.jpg"
    assert 1 - document["rows"][0]["score"] < 1e-3
    assert document["rows"][0]["box"] == document["query_box"]
    assert document["search"]["exact"] is True


def test_layers_are_listed_with_their_fields() -> None:
    document = json.loads(invoke("layers", "efficientnet-lite:0", "--layers", "_blocks.0,_blocks.1", "--json").stdout)
    assert [row["name"] for row in document["rows"]] == ["_blocks.0", "_blocks.1"]
    assert document["rows"][0]["grid"] == [112, 112]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("top", "{atlas}", "_blocks.0:99"), 5, "layer _blocks.0 has units 0 to 15"),
        (("top", "{atlas}", "_blocks.9:1"), 5, "it has _blocks.0, _blocks.5, _blocks.15"),
        (("top", "{atlas}", "_blocks.0"), 2, "is not LAYER:UNIT"),
        (("top", "{atlas}", "_blocks.0:1", "--quantile", "0.9..0.1"), 2, "0 <= a <= b <= 1"),
        (("top", "{atlas}", "_blocks.0:1", "--order", "up"), 2, "'desc', 'asc', 'random'"),
        (("top", "{empty}", "_blocks.0:1"), 5, "write one with unitscope index"),
        (("explain", "{atlas}", "nowhere.jpg"), 5, "is not among the 40 of this atlas"),
        (("explain", "{atlas}", "{text}"), 2, "not a picture"),
        (("neighbors", "{atlas}", "blobs/001.jpg", "--box", "0,0,5000,20"), 2, "not within the picture: 0,0 to 96,96"),
        (("neighbors", "{atlas}", "blobs/001.jpg", "--box", "1,2,3"), 2, "four whole numbers"),
        (("neighbors", "{atlas}", "blobs/001.jpg", "--layer", "_blocks.0"), 2, "indexed by layer '_blocks.15'"),
        (("units", "{atlas}", "_blocks.0", "--sort", "size"), 2, "cannot be sorted by 'size'"),
        (("index", "{missing}", "--atlas", "{out}"), 5, "does not exist"),
        (("index", "{empty}", "--atlas", "{out}"), 1, "holds no picture"),
        (("index", "{text}", "--atlas", "{out}"), 1, "is a file"),
        (("index", "{corpus}", "--atlas", "{out}", "--model", "resnet18"), 2, "unknown scheme"),
        (("index", "{corpus}", "--atlas", "{out}", "--model", "torchvision:resnet19"), 2, "resnet18"),
        (("index", "{corpus}", "--atlas", "{out}", "--layers", "nothing*"), 2, "no layer matches 'nothing*'"),
        (("index", "{corpus}", "--atlas", "{out}", "--weights", "{missing}"), 2, "weights file"),
        (("index", "{corpus}", "--atlas", "{out}", "--weights", "{text}"), 2, "no plain state dict"),
        (("index", "{corpus}", "--atlas", "{out}", "--precision", "fp8"), 2, "precision"),
        (("index", "{corpus}", "--atlas", "{atlas}"), 2, "is an atlas of layers _blocks.0, _blocks.5, _blocks.15"),
        (("verify", "{empty}"), 5, "run unitscope index first"),
        (("serve", "{atlas}", "--host", "0.0.0.0"), 2, "refusing to listen on 0.0.0.0 without keys"),
    ],
)  # fmt: skip
def test_errors_say_what_would_do(
    words: tuple[str, ...], code: int, text: str, tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pt").write_text("no picture, no weights")
    places = {
        "atlas": tiny_atlas,
        "corpus": tiny_corpus,
        "empty": tmp_path / "empty",
        "text": tmp_path / "text.pt",
        "missing": tmp_path / "missing",
        "out": tmp_path / "out",
    }
    result = run_in_process(*(word.format(**places) for word in words))
    assert (result.returncode, result.stdout) == (code, "")
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()


def run_in_process(*words: str) -> subprocess.CompletedProcess[str]:
    """`unitscope` as a person runs it, without paying for a new interpreter."""
    import contextlib

    from unitscope.cli import main

    talk, data = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["unitscope", *words]
    try:
        with contextlib.redirect_stderr(talk), contextlib.redirect_stdout(data), pytest.raises(SystemExit) as stop:
            main()
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(words, int(stop.value.code or 0), data.getvalue(), talk.getvalue())


@pytest.mark.parametrize(
    "command", ["top", "eigen", "facets", "labels", "similar", "visualisations", "optimise", "project", "trace"]
)
@pytest.mark.parametrize("unit", ["_blocks.15:320", "_blocks.99:0"])
def test_a_unit_that_is_not_there_is_not_found_whatever_is_asked(tiny_atlas: Path, command: str, unit: str) -> None:
    words = [command, tiny_atlas, unit, *(["0b8273941ade"] if command == "trace" else [])]
    found = invoke(*words)
    assert isinstance(found.exception, NotFoundError), found.exception
    assert found.exception.exit_code == 5


def test_unknown_keys_in_the_config_file_name_the_nearest(tiny_corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "unitscope.toml"
    file.write_text("[index]\nbatchsize = 8\n")
    result = run_in_process("index", str(tiny_corpus), "--atlas", str(tmp_path / "a"), "--config", str(file))
    assert result.returncode == 2
    assert "unknown key 'batchsize' in [index]; did you mean batch_size?" in result.stderr


def test_file_gives_way_to_environment_and_both_to_flags(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unitscope_pipelines.indexing.config import IndexConfig, load_config

    file = tmp_path / "run.toml"
    file.write_text('[index]\nbatch_size = 4\nshard_size = 5\nlayers = ["_blocks.*"]\n')
    monkeypatch.setenv("UNITSCOPE_SHARD_SIZE", "6")
    flags = {"corpus": str(tiny_corpus), "atlas": "a", "workers": None, "limit": 7}
    config = load_config(IndexConfig, "index", flags, file)
    assert (config.batch_size, config.shard_size, config.limit) == (4, 6, 7)
    assert config.layers == ("_blocks.*",)


@pytest.mark.long
def test_a_plan_predicts_and_writes_nothing(tiny_corpus: Path, tmp_path: Path) -> None:
    result = run_in_process("index", str(tiny_corpus), "--atlas", str(tmp_path / "a"), "--plan", "--json")
    forecast = json.loads(result.stdout)
    assert (forecast["pending_files"], forecast["rows"]) == (42, 42 * 1808)
    assert not (tmp_path / "a").exists()


def test_what_people_type_first_is_understood() -> None:
    assert invoke("-h").stdout == invoke("--help").stdout
    assert invoke("top", "-h").stdout == invoke("top", "--help").stdout
    assert invoke("--version").stdout == f"unitscope {version('unitscope')}\n"
    assert invoke("optimize", "-h").stdout.replace("optimize", "optimise") == invoke("optimise", "-h").stdout
    assert "optimize" not in invoke("-h").stdout


def test_an_atlas_of_any_size_is_planned_without_a_corpus() -> None:
    shown = invoke("plan", "--images", "1e9", "--units", "2,000", "--nodes", 64)
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:]] == [
        *("list", "scan", "catalogue", "rank", "embed", "merge", "seal", "all", "serve")
    ]
    assert "in one process" in shown.stderr
    told = json.loads(invoke("plan", "--images", "4_000_000", "--price", 2, "--format", "json").stdout)
    assert told["scale"]["images"] == 4_000_000
    assert told["stages"][1]["cost"] == pytest.approx(2 * told["stages"][1]["hours"])
    assert "'many' is no count" in str(invoke("plan", "--images", "many").exception)


def test_too_many_skipped_files_exit_with_three(tiny_corpus: Path, tmp_path: Path, ray_session: None) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    blobs(1).save(corpus / "good.png")
    for number in range(2):
        (corpus / f"bad{number}.png").write_bytes(b"")
    words = ("index", str(corpus), "--atlas", str(tmp_path / "a"), "--layers", "_blocks.0", "--max-errors", "1")
    result = run_in_process(*words, "--json")
    assert result.returncode == 3
    assert json.loads(result.stdout)["skipped"] == 2


@pytest.mark.long
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)], ids=["interrupt", "stop"]
)
def test_a_signal_keeps_finished_shards_and_prints_how_to_resume(
    number: signal.Signals, tiny_corpus: Path, tmp_path: Path
) -> None:
    import psutil

    words = ("index", str(tiny_corpus), "--atlas", str(tmp_path / "a"), "--progress", "json", "--shard-size", "4")
    words += ("--layers", "_blocks.0")
    process = subprocess.Popen(
        [sys.executable, "-m", "unitscope", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"scan"' in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, talk = process.communicate(timeout=120)
    assert process.returncode == 128 + number, talk
    assert "*** SIG" not in talk
    assert "Traceback" not in talk
    assert "Resume with: unitscope index" in talk
    assert still_running(children, 30) == []
