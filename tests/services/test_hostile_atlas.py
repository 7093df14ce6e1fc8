"""The golden hostile atlas: whatever is in it, nothing outside is read or changed, nothing waits, and all is said."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from tests.hostile_atlas import HOSTILE, LAYER, WORD, Hostile
from tests.services.conftest import ORIGIN
from unitscope.cli import app
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_schemas import layout
from unitscope_schemas.errors import UnitscopeError
from unitscope_services.web.app import Settings, create_app

pytestmark = pytest.mark.long

API = "/api/v1/atlases/tiny"
IN_TIME_S = 60
"""Time in which each kind of use ends, on a busy machine: what waits, waits for ever."""
REFUSED = ("a version", "a layer", "a part by", "a part that leads", "more units", "more images", "a manifest")
ROOTS = ("a root", "the root of")
OUTSIDE = (*ROOTS, "a picture by a whole", "a picture that leads", "a picture in a bucket")
BEHIND = ("behind", "is a pipe outside", "is a device", "is a link to")
UNUSABLE = ("is a pipe", "is a folder", "of more", "at no", "in no")
COMPUTED = ("weights", "code")
ASKED = ("a root of a bucket", "a picture in a bucket")
"""What commands on a person's own machine ask a store for, which is none here: they would try for minutes."""
Use = Callable[[Hostile, Path], list[str]]


@pytest.fixture(params=HOSTILE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hostile(name: str, tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path) -> Iterator[Hostile]:
    made = Hostile(tiny_atlas, tiny_corpus, tmp_path)
    made.computes, made.is_allowed = name.startswith(COMPUTED), not name.startswith(ROOTS)
    HOSTILE[name](made)
    before, passwords = made.snapshot(), Path("/etc/passwd").read_bytes()
    yield made
    assert made.snapshot() == before, "something outside was changed"
    assert Path("/etc/passwd").read_bytes() == passwords
    assert not Path("/tmp/unitscope-pickle-ran").exists(), "code ran"


def in_time(use: Use, hostile: Hostile, out: Path) -> list[str]:
    """What a use said; it is let alone if it waits, which fails the test."""
    said: list[str] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            said.extend(use(hostile, out))
        except BaseException as error:  # noqa: BLE001  (told below)
            faults.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(IN_TIME_S)
    assert not thread.is_alive(), "it waits"
    if faults and not isinstance(faults[0], UnitscopeError):
        raise faults[0]
    said += [str(fault) for fault in faults]
    assert all(WORD not in text for text in said), "a secret was told"
    return said


def serve(hostile: Hostile, _: Path) -> list[str]:
    """Ask a server for everything that an atlas has."""
    said = []
    settings = Settings(atlases=(hostile.atlas,), corpora=(str(hostile.corpus),) * hostile.is_allowed)
    with TestClient(create_app(settings), ORIGIN, raise_server_exceptions=False) as client:
        rows = client.get(f"{API}/layers/{LAYER}/units/3/patches?k=3").json().get("rows")
        rows = rows or client.get(f"{API}/images?k=3").json().get("rows") or [{"image_id": "0" * 64}]
        unit, image, page = f"{API}/layers/{LAYER}/units/3", f"{API}/images/{rows[0]['image_id']}", "/a/tiny"
        for address in (
            *("/", page, f"{page}/layers/{LAYER}", f"{page}/layers/{LAYER}/units/3", f"{page}/skipped"),
            *(image.replace(API, page), API, f"{API}/manifest", f"{API}/layers", f"{API}/layers/{LAYER}/units"),
            *(f"{API}/images", f"{API}/images.csv", f"{API}/images?where=path^=a", f"{API}/skipped"),
            *(f"{unit}/patches", f"{unit}/patches.csv", f"{unit}/labels", f"{unit}/visualisations"),
            *(f"{API}/comparisons", "/compare?a=tiny&b=tiny"),
            *(f"{image}.json", f"{image}.jpg", f"{image}/units", f"{image}/neighbors", f"{image}/neighbors?exact=true"),
            f"{API}/patches/{rows[0]['image_id']}.png?unit={LAYER}:3",
            *(f"{API}/layers/{LAYER}/sprites/{kind}.png" for kind in ("patch", "optimised")),
            *([f"{image}/map?layer={LAYER}&unit=3"] if hostile.computes else []),
            *([f"{unit}/similar"] if (hostile.atlas / layout.COACTIVATIONS).is_dir() else []),
            *([f"{page}/comparisons/{'0' * 16}"] if (hostile.atlas / layout.COMPARISONS).is_dir() else []),
        ):
            answer = client.get(address, headers={"Accept": "text/html, */*"})
            shown = answer.headers["content-type"].startswith("image/")
            text = f"a picture at {address}" if shown else answer.text
            said.append(f"{answer.status_code} {address}: {text}" if answer.status_code >= 400 else text)
            assert "root:x:0" not in said[-1]
    return said


def top(hostile: Hostile, out: Path) -> list[str]:
    return command("top", hostile.atlas, f"{LAYER}:3", "--sheet", out / "sheet.png")


def export(hostile: Hostile, out: Path) -> list[str]:
    said = command("export", hostile.atlas, "--out", out / "pages", "--units", f"{LAYER}:3", "--format", "html")
    return [*said, *(path.read_text() for path in (out / "pages").rglob("*.html"))]


def change(hostile: Hostile, _: Path) -> list[str]:
    """Take an image out, bring it back, and sweep."""
    atlas = hostile.atlas
    said = command("remove", atlas, "blobs/003.jpg")
    said += command("remove", atlas, "blobs/003.jpg", "--restore")
    return said + command("versions", atlas) + command("gc", atlas, "--keep", "1")


def check(hostile: Hostile, _: Path) -> list[str]:
    return [str(fault) for fault in verify(hostile.atlas, sample=0, seed=0).faults]


def command(*words: object) -> list[str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, UnitscopeError | SystemExit):
        raise result.exception
    return [result.output, str(result.exception or "")]


USES: dict[str, Use] = {"serve": serve, "top": top, "export": export, "verify": check, "change": change}


def test_nothing_outside_is_read_or_changed_nothing_waits_and_all_is_said(
    name: str, hostile: Hostile, tmp_path: Path
) -> None:
    said: dict[str, list[str]] = {}
    for use, function in USES.items():
        if use not in ("serve", "change") and name in ASKED:
            said[use] = []
            continue
        copied = tmp_path / f"{use}-out"
        copied.mkdir()
        said[use] = in_time(function, hostile, copied)
    assert {path.name for path in tmp_path.iterdir() if not path.name.endswith("-out")} == {"inside", "outside"}
    served = "\n".join(said["serve"])
    if name.startswith(REFUSED):
        assert len(said["serve"]) == 1, "it was opened"
        assert re.search("damaged|leads out|not opened|no atlas", served), served
    if name.startswith(OUTSIDE) or (name.startswith("a picture") and any(words in name for words in BEHIND)):
        assert f"a picture at {API}/images" not in served
        assert f"a picture at {API}/patches" not in served
        assert "adds --corpus ROOT" in served
    if name.startswith("a picture") and any(words in name for words in UNUSABLE):
        assert f"404 {API}/images/" in served
    assert not re.search(r"\x1b|\u202e", "\n".join(said["top"])), "the terminal is steered"
    for page in (*said["serve"], *said["export"]):
        assert not (page.startswith("<!doctype") and "<script>alert" in page), page[:300]


def test_a_good_atlas_has_no_fault(tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    """So that what is said above is said of what was put in."""
    good = Hostile(tiny_atlas, tiny_corpus, tmp_path)
    for use, function in USES.items():
        (tmp_path / use).mkdir()
        said = in_time(function, good, tmp_path / use)
        assert not [text for text in said if re.match("[45][0-9][0-9] ", text)], use
    shutil.rmtree(tmp_path / "inside")
