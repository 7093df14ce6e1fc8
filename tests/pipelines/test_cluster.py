"""An index run on a cluster that is already there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TINY_LAYERS
from tests.tables import contents, difference

PORT = 6397


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A cluster of its own head process, with token authentication on; gives the environment of its users."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    ray = str(Path(sys.executable).with_name("ray"))
    start = [ray, "start", "--head", "--port", str(PORT), "--num-cpus", "2", "--include-dashboard=false", "--block"]
    head = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield environment
    finally:
        head.terminate()
        head.wait(timeout=60)


@pytest.mark.slow
def test_a_running_cluster_gives_the_rows_of_a_local_one(
    cluster: dict[str, str], tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    words = ["index", str(tiny_corpus), "--atlas", str(tmp_path / "atlas"), "--layers", ",".join(TINY_LAYERS)]
    options = ["--batch-size", "8", "--address", f"127.0.0.1:{PORT}", "--json"]
    command = [sys.executable, "-m", "unitscope", *words, *options]
    result = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 40
    assert difference(contents(tiny_atlas), contents(tmp_path / "atlas")) == []
