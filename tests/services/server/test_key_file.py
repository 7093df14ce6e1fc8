"""The file of keys: whose it must be, how keys come into it and out, and that a running server follows."""

import os
import re
import stat
import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.services.conftest import ORIGIN, bearer
from unitscope_schemas.errors import AccessError, NotFoundError, UsageError
from unitscope_services.server.access.key_file import make_key, read_keys, remove_key
from unitscope_services.server.access.keys import Keys
from unitscope_services.server.access.readers import Credentials
from unitscope_services.web.app import Settings, create_app


def known(keys: Keys, token: str) -> bool:
    try:
        return keys.reader(Credentials(f"Bearer {token}")).key is not None
    except AccessError:
        return False


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o606, 0o640, 0o620, 0o660, 0o644, 0o444, 0o440, 0o777])
def test_a_key_file_that_others_may_read_or_write_is_refused_with_what_would_do(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(UsageError, match=f"chmod 600 {key_file}.*mounted secret"):
        Keys(key_file, anonymous_read=False)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_of_its_owner_alone_is_read(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    assert [key.name for key in read_keys(key_file)] == ["reader", "worker", "owner"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
def test_a_mounted_secret_of_another_user_may_be_read_by_its_group(key_file: Path) -> None:
    os.chown(key_file, 12345, -1)
    key_file.chmod(0o440)
    assert len(read_keys(key_file)) == 3
    for mode in (0o444, 0o460):
        key_file.chmod(mode)
        with pytest.raises(UsageError, match="chmod 600"):
            read_keys(key_file)


def test_a_key_file_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match="is no file"):
            read_keys(path)


def test_a_new_key_is_stored_as_its_hash_in_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    before = os.umask(0)
    try:
        token = make_key(path, "anna", "compute")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"unitscope_[\w-]{43}", token), "a prefix to look for, and 256 bits"
    assert token not in path.read_text() and token.removeprefix("unitscope_") not in path.read_text()
    keys = Keys(path, anonymous_read=False)
    reader = keys.reader(Credentials(f"Bearer {token}"))
    assert (reader.name, reader.may("compute"), reader.may("admin")) == ("anna", True, False)


def test_a_key_is_added_behind_what_stands_there_and_taken_out_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nold read " + "0" * 64)
    path.chmod(0o600)
    make_key(path, "anna", "read")
    make_key(path, "bob", "admin")
    assert [key.name for key in read_keys(path)] == ["old", "anna", "bob"]
    place = path.stat().st_ino
    remove_key(path, "anna")
    assert [key.name for key in read_keys(path)] == ["old", "bob"]
    assert path.read_text().startswith("# ours\n")
    assert path.stat().st_ino == place, "a container that the file is mounted in would not see another"
    with pytest.raises(NotFoundError, match="old, bob"):
        remove_key(path, "anna")
    with pytest.raises(UsageError, match="bob' already"):
        make_key(path, "bob", "read")


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "#a", "a" * 65, "a/b"])
def test_a_name_that_would_break_the_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="letters"):
        make_key(tmp_path / "keys", name, "read")


def test_keys_that_are_made_at_once_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    threads = [threading.Thread(target=make_key, args=(path, f"key{number}", "read")) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in read_keys(path)) == sorted(f"key{number}" for number in range(16))


def test_a_running_server_follows_its_key_file_at_once(key_file: Path) -> None:
    with TestClient(create_app(Settings(key_file=key_file)), ORIGIN) as client:
        anna = {"Authorization": f"Bearer {make_key(key_file, 'anna', 'read')}"}
        assert client.get("/", headers=anna).status_code == 200
        remove_key(key_file, "anna")
        assert client.get("/", headers=anna).status_code == 401
        assert client.get("/", headers=bearer("reader")).status_code == 200


def test_while_it_runs_a_line_that_is_wrong_gives_no_key_and_takes_none(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor do the keys of before linger: what the file says now counts, line by line."""
    keys = Keys(key_file, anonymous_read=False)
    lines = key_file.read_text().splitlines()
    key_file.write_text("\n".join([*lines[:3], "worker rea", lines[4]]))
    assert [known(keys, f"{name}-key") for name in ("reader", "worker", "owner")] == [True, False, True]
    assert "line 4" in caplog.text


def test_while_it_runs_no_key_is_known_without_the_file_or_where_others_may_read_it(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys(key_file, anonymous_read=False)
    key_file.chmod(0o644)
    assert not known(keys, "reader-key")
    assert "chmod 600" in caplog.text
    key_file.chmod(0o600)
    assert known(keys, "reader-key")
    key_file.rename(key_file.with_name("away"))
    assert not known(keys, "reader-key")
    key_file.with_name("away").rename(key_file)
    assert known(keys, "reader-key")
