"""Who reaches the processes of a local run: nobody beyond this machine, and here only who has the token."""

import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import ray

JOIN = "import sys, ray; ray.init(address=sys.argv[1], logging_level=50); print('joined')"


@pytest.fixture
def head(ray_session: None) -> str:
    """The address of the head of the local run."""
    return str(ray.get_runtime_context().gcs_address)


def joined(head: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a program that joins the run."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    given = {**inherited, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **environment}  # at the address as it is given
    return subprocess.run(
        [sys.executable, "-c", JOIN, head], env=given, capture_output=True, text=True, timeout=300, check=False
    )


def test_every_process_of_a_local_run_listens_on_loopback_alone(head: str) -> None:
    assert ip_address(head.rpartition(":")[0]).is_loopback
    me = psutil.Process()
    heard = [
        ip_address(connection.laddr.ip)
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(heard) > 3
    assert [address for address in heard if not (getattr(address, "ipv4_mapped", None) or address).is_loopback] == []


@pytest.mark.long
@pytest.mark.parametrize("token", [None, "0" * 64], ids=["without a token", "with a wrong token"])
def test_who_has_not_the_token_of_a_run_is_refused(head: str, token: str | None) -> None:
    given = {"RAY_AUTH_MODE": "disabled"} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    refused = joined(head, **given)
    assert refused.returncode != 0
    assert "joined" not in refused.stdout
    assert "token" in refused.stderr


@pytest.mark.long
def test_who_has_the_token_is_let_in(head: str) -> None:
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    let_in = joined(
        head, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=os.environ.get("RAY_AUTH_TOKEN") or path.read_text().strip()
    )
    assert "joined" in let_in.stdout, let_in.stderr
