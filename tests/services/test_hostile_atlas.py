"""The golden hostile atlas: whatever a stranger puts in, nothing outside is read or changed, nothing waits, all is said."""

import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from tests.hostile_atlas import HOSTILE, LAYER, WORD, Hostile
from unitscope.cli import app
from unitscope_pipelines.indexing.verify import verify
from unitscope_schemas.errors import UnitscopeError
from unitscope_services.web.app import Settings, create_app

pytestmark = pytest.mark.slow

IN_TIME_S = 60
"""Time in which each kind of use ends, on a busy machine: what waits, waits for ever."""
REFUSED = ("a version", "a layer", "a part by", "a part that leads", "more units", "more images", "a manifest")
OUTSIDE = ("a root", "the root of", "a picture by a whole", "a picture that leads", "a picture in a bucket")
BEHIND = (
    "a picture behind",
    "a picture that is a pipe outside",
    "a picture that is a device",
    "a picture that is a link",
)
UNUSABLE = (
    "a picture that is a pipe",
    "a picture that is a folder",
    "a picture of more",
    "a picture at",
    "a picture in no",
)
Use = Callable[[Hostile, Path], list[str]]


@pytest.fixture(params=HOSTILE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hostile(name: str, tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path) -> Iterator[Hostile]:
    made = Hostile(tiny_atlas, tiny_corpus, tmp_path)
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
    settings = Settings(atlases=(hostile.atlas,), corpora=(str(hostile.corpus),), grace_s=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        api = "/api/v1/atlases/tiny"
        rows = client.get(f"{api}/layers/{LAYER}/units/3/patches?k=3").json().get("rows", [])
        image = rows[0]["image_id"] if rows else client.get(f"{api}/images?k=1").json()["rows"][0]["image_id"]
        picture = io.BytesIO()
        Image.new("RGB", (64, 64), "red").save(picture, "PNG")
        uploaded = client.post("/api/v1/uploads", files={"file": ("a.png", picture.getvalue(), "image/png")})
        upload = uploaded.headers.get("location", "/api/v1/uploads/none")
        for address in (
            *("/", "/a/tiny", f"/a/tiny/layers/{LAYER}", f"/a/tiny/layers/{LAYER}/units/3", f"/a/tiny/images/{image}"),
            *("/a/tiny/skipped", api, f"{api}/manifest", f"{api}/layers", f"{api}/layers/{LAYER}/units"),
            *(f"{api}/images", f"{api}/images.csv", f"{api}/images?where=path^=a", f"{api}/skipped"),
            *(
                f"{api}/layers/{LAYER}/units/3/{what}"
                for what in ("patches", "patches.csv", "labels", "visualisations")
            ),
            *(
                f"{api}/images/{image}{what}"
                for what in (".json", ".jpg", "/units", "/neighbors", "/neighbors?exact=true")
            ),
            f"{api}/patches/{image}.png?unit={LAYER}:3",
            f"{api}/layers/{LAYER}/sprites/patch.png",
            f"{api}/layers/{LAYER}/sprites/optimised.png",
            f"{upload}/units?atlas=tiny",
        ):
            answer = client.get(address, headers={"Accept": "text/html, */*"})
            assert answer.status_code < 600
            if answer.status_code >= 400:
                said.append(f"{answer.status_code} {address}: {answer.text}")
            else:
                said.append(
                    answer.text if "image/" not in answer.headers["content-type"] else f"a picture at {address}"
                )
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
    return list(verify(hostile.atlas, sample=0, seed=0).faults.values())


def command(*words: object) -> list[str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, UnitscopeError | SystemExit):
        raise result.exception
    return [result.output, str(result.exception or "")]


USES: dict[str, Use] = {"serve": serve, "top": top, "export": export, "verify": check, "change": change}


def test_nothing_outside_is_read_or_changed_nothing_waits_and_all_is_said(
    name: str, hostile: Hostile, tmp_path: Path
) -> None:
    said = {}
    for use, function in USES.items():
        copied = tmp_path / f"{use}-out"
        copied.mkdir()
        said[use] = in_time(function, hostile, copied)
    found = set(tmp_path.iterdir()) - {tmp_path / f"{use}-out" for use in USES}
    assert {path.name for path in found} == {"inside", "outside"}
    served = "\n".join(said["serve"])
    if name.startswith(REFUSED):
        assert len(said["serve"]) == 1, "it was opened"
        assert re.search("damaged|leads out|not opened|no atlas", served), served
    if name.startswith((*OUTSIDE, *BEHIND)):
        assert "a picture at" not in served.replace("sprites", "") or "sprites" in served
        assert "adds --corpus ROOT" in served
    if name.startswith(UNUSABLE):
        assert "404 /api/v1/atlases/tiny/images/" in served
    assert not re.search(r"\x1b|\u202e", "\n".join(said["top"])), "the terminal is steered"
    for page in (*said["serve"], *said["export"]):
        assert "<script>alert" not in page or page.lstrip().startswith(("{", "image")), page[:300]


def test_a_good_atlas_has_no_fault(tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    """So that what is said above is said of what was put in."""
    good = Hostile(tiny_atlas, tiny_corpus, tmp_path)
    for use, function in USES.items():
        (tmp_path / use).mkdir()
        said = in_time(function, good, tmp_path / use)
        assert not [text for text in said if re.match("[45][0-9][0-9] ", text) and "uploads" not in text], use
    shutil.rmtree(tmp_path / "inside")
