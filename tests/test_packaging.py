"""Installed beside a user's own modules of all the usual names: everything works, and a wheel holds what it must."""

import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from tests import kin
from tests.deploy.test_processes import free_ports
from tests.processes import still_running

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
PACKAGES = [
    ROOT / package
    for package in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
]
NAMES = {"unitscope", "unitscope_schemas", "unitscope_pipelines", "unitscope_services"}
THEIRS = ("schemas.py", "utils.py", "services/__init__.py", "pipelines/__init__.py", "tests/__init__.py", "layout.py")
INDEX = ["--model", "file:small_network.py:planted", "--trust-code", "--layers", "conv", "--layers", "head"]
SCRIPT = [str(Path(sys.executable).with_name("unitscope"))]
MODULE = [sys.executable, "-m", "unitscope"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of installed packages that holds ours alone and that nobody may write to."""
    folder = tmp_path_factory.mktemp("site")
    for package in PACKAGES:
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    before = contents(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    yield folder
    assert contents(folder) == before, "something was written among the installed packages"
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def contents(folder: Path) -> dict[str, int]:
    """Every file and when it was changed, but what Python compiles: root may write anywhere."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's project: pictures, a network, and modules of its own that break whoever imports them."""
    folder = tmp_path_factory.mktemp("project")
    for name in THEIRS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('{name} is the user\\'s own')\n")
    kin.write_network(folder)
    kin.write_pictures(folder / "pictures")
    for path in (folder / "pictures").rglob("*0[2-9]*.png"):
        path.unlink()
    return folder


class Run:
    """Commands in the project's folder, by the installed copy."""

    def __init__(self, site: Path, project: Path) -> None:
        self.folder = project
        self.environment = {**os.environ, "PYTHONPATH": str(site)}

    def __call__(self, *words: str, **environment: str) -> str:
        """What a command prints; it must succeed."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def run(site: Path, project: Path) -> Run:
    return Run(site, project)


@pytest.fixture(scope="module")
def atlas(run: Run) -> str:
    """The project's atlas by its relative path, made through a Ray of its own."""
    run(*MODULE, "index", "pictures", "--atlas", "atlas", "--workers", "1", *INDEX)
    return "atlas"


def test_the_installed_copy_is_the_one_that_runs(run: Run, site: Path) -> None:
    printed = run(sys.executable, "-c", "import " + ", ".join(NAMES) + "; print(unitscope_services.__file__)")
    assert printed.strip() == f"{site}/unitscope_services/__init__.py"


@pytest.mark.parametrize("command", [SCRIPT, MODULE], ids=["script", "module"])
def test_commands_work_in_a_folder_with_modules_of_all_the_usual_names(
    run: Run, atlas: str, command: list[str]
) -> None:
    assert "neighbors" in run(*command, "--help")
    rows = run(*command, "top", atlas, "conv:0", "-k", "3", "--format", "csv", "--sheet", "sheet.png").splitlines()
    assert len(rows) == 4
    assert (run.folder / "sheet.png").exists()


def test_a_notebook_works_there(run: Run, atlas: str) -> None:
    code = f"import unitscope; print(unitscope.open_atlas({atlas!r}).top('conv:0', k=3).num_rows, unitscope.Client)"
    assert run(sys.executable, "-c", code).startswith("3 ")


def test_a_server_works_there(run: Run, atlas: str) -> None:
    words = [*MODULE, "serve", atlas, "--port", "0"]
    server = subprocess.Popen(words, cwd=run.folder, env=run.environment, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        said = next(server.stderr)
        assert "serving on" in said, said + server.stderr.read()
        root = said.split()[2]
        assert b"alive" in urlopen(f"{root}livez", timeout=30).read()
        assert b"conv:0" in urlopen(f"{root}a/atlas/layers/conv/units/0", timeout=30).read()
        assert b":root" in urlopen(f"{root}static/unitscope.css", timeout=30).read()
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)


@pytest.fixture
def cluster(run: Run, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A cluster of one node on this machine, started elsewhere; gives the environment of its users."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    port = free_ports(["6379"])["6379"]
    mine = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_ADDRESS": f"127.0.0.1:{port}"}
    # nodes have what unitscope stands on; unitscope itself comes with the run
    environment = {**os.environ, **mine, "PYTHONPATH": ""}
    del environment["RAY_ADDRESS"]
    options = ["--port", str(port), "--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--include-dashboard=false"]
    words = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *options]
    with (tmp_path / "said").open("w+") as said:
        node = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=said, stderr=subprocess.STDOUT)
    try:
        while "Ray runtime started" not in (tmp_path / "said").read_text():
            assert node.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.2)
        yield mine
    finally:
        children = psutil.Process(node.pid).children(recursive=True) if node.poll() is None else []
        node.terminate()
        still_running(children, 20)
        node.wait(timeout=60)


def test_a_cluster_run_works_there_and_gives_the_same_rows(run: Run, atlas: str, cluster: dict[str, str]) -> None:
    address = cluster["RAY_ADDRESS"]
    run(*MODULE, "index", "pictures", "--atlas", "atlas-of-a-cluster", "--address", address, *INDEX, **cluster)
    top = ["top", "-k", "5", "--format", "csv"]
    assert run(*SCRIPT, *top, "atlas-of-a-cluster", "head:2") == run(*SCRIPT, *top, atlas, "head:2")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)]
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        words, env={**os.environ, "PATH": search}, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode and "hatchling" in done.stderr and "resol" in done.stderr:
        pytest.skip("the build backend, hatchling, cannot be fetched here")
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_a_wheel_installs_our_four_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    folders = {name.partition("/")[0] for name in wheel.namelist()}
    about = {folder for folder in folders if folder.endswith(".dist-info")}
    assert len(about) == 1
    assert folders - about == NAMES == {package.name for package in PACKAGES}


def test_a_wheel_holds_every_file_of_the_packages_and_the_licence(wheel: zipfile.ZipFile) -> None:
    ours = {
        str(path.relative_to(package.parent))
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(wheel.namelist())
    assert ours == {name for name in names if ".dist-info/" not in name}
    assert {f"{name}/py.typed" for name in NAMES} <= ours
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {"unitscope_services/web/templates/unit.html", "unitscope_services/web/static/unitscope.css"} <= ours
    assert b"License-Expression: Apache-2.0" in next(
        wheel.read(name) for name in names if name.endswith(".dist-info/METADATA")
    )
