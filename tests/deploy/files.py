"""What is deployed, as data: compose services, Kubernetes resources, the images' commands."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"


def compose() -> dict[str, Any]:
    """The compose file with its anchors merged and its variables at their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "docker-compose.yml").read_text())
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def resources(name: str) -> list[dict[str, Any]]:
    """The resources of one Kubernetes file."""
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def entrypoint(target: str) -> list[str]:
    """The entry point of one of the Dockerfile's targets."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    stage = re.search(rf"^FROM \S+ AS {target}$(.*?)(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL)
    assert stage is not None
    found = re.search(r"^ENTRYPOINT (\[.*\])$", stage[1], re.MULTILINE)
    return json.loads(found[1]) if found else []


def index_command() -> list[str]:
    """How the compose file says that an index run is started, behind `docker compose exec ray-head`."""
    text = (ROOT / "docker-compose.yml").read_text()
    found = re.search(r"docker compose exec ray-head (.*?) \\\n#\s+(.*)\n", text)
    assert found is not None
    return f"{found[1]} {found[2]}".split()
