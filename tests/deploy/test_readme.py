"""README's page for a cluster, each command as it stands there."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.deploy.files import ROOT
from tests.deploy.test_processes import free_ports
from tests.pictures import write_corpus


def cluster_page() -> str:
    found = re.search(
        r"^## On a cluster$.*?^```$\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Somebody's home; whatever they left running is ended."""
    yield tmp_path
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("HOME") == str(tmp_path):
                process.kill()


@pytest.mark.long
def test_the_cluster_page_leads_from_nothing_to_an_answer(home: Path) -> None:
    write_corpus(home / "shared" / "pictures", 8)
    page = cluster_page().replace("/shared", f"{home}/shared").replace("sheet.png", f"{home}/sheet.png")
    page = page.replace("HEAD", "127.0.0.1").replace("6379", str(free_ports(["6379"])["6379"]))
    page = re.sub(r"^(ray start --head \S+ \S+)", r"\1 --node-ip-address 127.0.0.1", page, flags=re.MULTILINE)
    page = re.sub(r"^(ray start --address \S+)", r"\1 --node-ip-address 127.0.0.2", page, flags=re.MULTILINE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with (home / "said").open("w") as said:  # a pipe would stay open as long as the nodes it started
        done = subprocess.run(
            ["bash", "-exc", page],
            cwd=ROOT,
            env={**environment, "HOME": str(home)},
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=400,
            check=False,
        )
    assert done.returncode == 0, (home / "said").read_text()
    assert (home / "sheet.png").stat().st_size > 10_000
    assert (home / ".ray" / "auth_token").exists()
