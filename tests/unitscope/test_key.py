"""The commands new, list and remove of key."""

import json
import subprocess
import sys
from pathlib import Path

from unitscope_services.server.access.key_file import read_keys


def run(*words: str | Path, expected: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "unitscope", "key", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == expected, done.stderr
    return done


def test_a_key_is_shown_once_listed_by_name_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    made = run("new", "anna", "--scope", "compute", "--key-file", file)
    assert made.stdout.startswith("unitscope_") and made.stdout.count("\n") == 1
    assert "only time" in made.stderr and made.stdout.strip() not in made.stderr
    listed = run("list", "--key-file", file, "--format", "json").stdout
    assert json.loads(listed) == {"rows": [{"name": "anna", "scopes": "compute"}]}
    assert made.stdout.strip() not in listed + file.read_text()
    assert "anna" in run("remove", "nobody", "--key-file", file, expected=5).stderr
    run("new", "bob", "--key-file", file)
    run("remove", "anna", "--key-file", file)
    assert [(key.name, set(key.scopes)) for key in read_keys(file)] == [("bob", {"read"})]
