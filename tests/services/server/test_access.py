"""Who may ask what."""

from pathlib import Path
from typing import Any

import pytest

from tests.services.conftest import UNIT, bearer
from unitscope_schemas.errors import UsageError
from unitscope_services.server.access.key_file import read_keys

API = "/api/v1/atlases/tiny"
UPLOADS = f"{API}/uploads/none"


def test_without_a_key_file_everything_is_open(served: Any) -> None:
    client = served()
    assert client.get(UNIT).status_code == 200
    assert client.get(UPLOADS).status_code == 404
    assert client.get("/metrics").status_code == 200


def test_with_keys_every_question_needs_one(served: Any, key_file: Path) -> None:
    client = served(key_file=key_file)
    for address in (UNIT, "/api/v1/atlases", "/", "/a/tiny", "/docs", UPLOADS, "/metrics"):
        answer = client.get(address)
        assert answer.status_code == 401, address
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200
    assert client.get(UNIT, headers=bearer("reader")).status_code == 200


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer ", "Basic cmVhZGVyLWtleQ==", "reader-key"])
def test_an_unknown_key_is_refused_even_where_none_is_needed(served: Any, key_file: Path, header: str) -> None:
    client = served(key_file=key_file, anonymous_read=True)
    assert client.get(UNIT).status_code == 200
    assert client.get(UNIT, headers={"Authorization": header}).status_code == 401


def test_a_key_that_is_too_weak_is_forbidden_not_unknown(served: Any, key_file: Path) -> None:
    client = served(key_file=key_file)
    answer = client.get(UPLOADS, headers=bearer("reader"))
    assert answer.status_code == 403
    assert "insufficient_scope" in answer.headers["www-authenticate"]
    assert client.get(UPLOADS, headers=bearer("worker")).status_code == 404
    assert client.get("/metrics", headers=bearer("worker")).status_code == 403
    assert client.get("/metrics", headers=bearer("owner")).status_code == 200
    assert client.get(UNIT, headers=bearer("owner")).status_code == 200


def test_anonymous_reading_does_not_include_computing(served: Any, key_file: Path) -> None:
    for client in (served(key_file=key_file, anonymous_read=True), served(anonymous_read=True)):
        image = client.get(f"{API}/images?k=1").json()["rows"][0]["image_id"]
        assert client.get(f"{API}/images/{image}/neighbors").status_code == 200
        assert client.get(f"{API}/images/{image}/neighbors?box=1,1,50,50").status_code == 401
        assert client.get(f"{API}/images/{image}/map?layer=_blocks.0&unit=0").status_code == 401
        assert client.post(f"{API}/uploads", content=b"x").status_code == 401
        assert client.get("/metrics").status_code == 401


def test_a_problem_of_access_tells_nothing_about_the_atlas(served: Any, key_file: Path) -> None:
    client = served(key_file=key_file)
    known, unknown = client.get(UNIT).json(), client.get(UNIT.replace("tiny", "nothing")).json()
    assert known["detail"] == unknown["detail"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key"),
        ("reader read", "line 1"),
        ("\nreader write " + "0" * 64, "no scope write"),
        ("reader read reader-key", "no SHA-256"),
    ],
)
def test_a_wrong_key_file_is_told_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=said):
        read_keys(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(tmp_path / "missing")
