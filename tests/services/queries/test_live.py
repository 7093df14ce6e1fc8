"""Live frames over a WebSocket: the API's numbers, each frame answered or told why not, nothing kept."""

import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from tests.services.conftest import bearer
from tests.services.web.test_images import API, image_of, picture_bytes, upload
from unitscope_schemas.answers.live import LiveAnswer, LiveProblem
from unitscope_schemas.geometry import Location
from unitscope_schemas.units import UnitId
from unitscope_services.queries.live import levels_of, shrunk
from unitscope_services.queries.session import Session

LIVE = f"{API}/live"
Got = tuple[LiveAnswer, dict[str, bytes]]


def tell(socket: Any, data: bytes | None = None, **session: Any) -> Any:
    """Ask about a frame; gives the message that answers."""
    socket.send_text(json.dumps({"unit": "_blocks.5:3", **session}))
    if data is not None:
        socket.send_bytes(data)
    return json.loads(socket.receive_text())


def answered(socket: Any, data: bytes | None = None, **session: Any) -> Got:
    """The answer with its parts."""
    head = LiveAnswer.model_validate(tell(socket, data, **session))
    return head, {part: socket.receive_bytes() for part in head.parts}


def refused(socket: Any, data: bytes | None = None, **session: Any) -> LiveProblem:
    return LiveProblem.model_validate(tell(socket, data, **session))


@contextmanager
def connected(client: TestClient, **headers: str) -> Iterator[Any]:
    with client.websocket_connect(f"ws://localhost{LIVE}", headers=headers) as socket:
        yield socket


def test_a_frame_has_the_activations_and_percentiles_of_the_same_upload(client: TestClient) -> None:
    data = picture_bytes(height=120, width=150)
    rows = client.get(f"{API}/uploads/{upload(client, data)['id']}/units?layer=_blocks.5&k=8").json()["rows"]
    with connected(client) as socket:
        head, _ = answered(socket, data, unit=f"_blocks.5:{rows[2]['channel']}", id=5)
    shown = ("channel", "activation", "percentile", "row", "col")
    assert [[getattr(unit, name) for name in shown] for unit in head.top] == [
        [row[name] for name in shown] for row in rows
    ]
    assert head.id == 5
    assert (head.unit.activation, head.unit.percentile) == (rows[2]["activation"], rows[2]["percentile"])
    assert (head.unit.row, head.unit.col) == (rows[2]["row"], rows[2]["col"])


def test_an_image_of_the_corpus_by_its_name_or_its_bytes_has_its_recorded_figures(
    client: TestClient, tiny_corpus: Path
) -> None:
    row = client.get(f"{API}/layers/_blocks.5/units/3/patches?k=1").json()["rows"][0]
    with connected(client) as socket:
        by_name, named = answered(socket, image=row["image_id"])
        by_bytes, sent = answered(socket, (tiny_corpus / row["path"]).read_bytes())
    assert by_name.unit == by_bytes.unit
    assert named == sent
    assert (by_name.unit.activation, by_name.unit.percentile) == (row["activation"], 1.0)
    assert (by_name.unit.row, by_name.unit.col) == (row["row"], row["col"])


def test_maps_are_bytes_on_the_scale_of_each_unit_in_the_corpus(client: TestClient, session: Session) -> None:
    image = image_of(client, "blobs/003.jpg")["image_id"]
    known = client.get(f"{API}/layers/_blocks.5/units/7").json()
    values = np.array(client.get(f"{API}/images/{image}/map?layer=_blocks.5&unit=7").json()["values"])
    with connected(client) as socket:
        head, parts = answered(socket, image=image, unit="_blocks.5:7")
    maps = np.frombuffer(parts["maps"], np.uint8).reshape(head.units, *head.maps_grid)
    own = np.frombuffer(parts["map"], np.uint8).reshape(head.grid)
    low = 0 if known["maximum"] > 0 else known["minimum"]
    slow = [[255 * min(max((value - low) / (known["maximum"] - low), 0), 1) for value in line] for line in values]
    assert np.abs(own - np.array(slow)).max() <= 0.51
    np.testing.assert_array_equal(maps[7], own)
    assert maps.max() > 100


def test_levels_of_units_never_active_or_not_finite_are_zero(session: Session) -> None:
    maps = np.full((16, 2, 2), 1e9, np.float32)
    maps[3] = np.nan
    levels = levels_of(session.atlas, "_blocks.0", maps)
    assert (levels[3] == 0).all()
    assert (levels[[*range(3), *range(4, 16)]] == 255).all()


@pytest.mark.parametrize(("shape", "most", "step"), [((3, 8, 8), 192, 1), ((3, 8, 8), 191, 2), ((2, 7, 5), 20, 3)])
def test_large_maps_are_shrunk_to_the_highest_of_each_square(shape: tuple[int, int, int], most: int, step: int) -> None:
    levels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    slow = [
        [
            [unit[row : row + step, col : col + step].max() for col in range(0, shape[2], step)]
            for row in range(0, shape[1], step)
        ]
        for unit in levels
    ]
    np.testing.assert_array_equal(shrunk(levels, most), np.array(slow))


def test_a_projection_is_that_of_the_encoder_and_only_made_when_asked_for(client: TestClient, session: Session) -> None:
    data = picture_bytes(seed=5)
    with connected(client) as socket:
        without, _ = answered(socket, data)
        head, parts = answered(socket, data, method="guided")
    assert without.projection is None and "projection" not in without.parts
    told = head.projection
    assert told is not None and told.activation == pytest.approx(head.unit.activation, rel=1e-4)
    place = Location(told.row, told.col)
    found = session.encoder.project([session.encoder.read(data)], UnitId("_blocks.5", 3), [place], "guided").pixels[0]
    shown = np.asarray(Image.open(io.BytesIO(parts["projection"]))).astype(float).transpose(2, 0, 1)
    expected = 128 + 127 * np.clip(found.numpy() / told.scale, -1, 1)
    assert np.abs(shown - expected).max() <= 0.51


def test_signals_of_an_earlier_layer_explain_the_projected_activation(client: TestClient) -> None:
    session = {"unit": "_blocks.0:1", "method": "gradient", "project": "_blocks.5:9", "signals": True}
    with connected(client) as socket:
        head, parts = answered(socket, picture_bytes(seed=5), **session)
        behind = refused(
            socket, picture_bytes(), unit="_blocks.5:3", method="gradient", project="_blocks.0:9", signals=True
        )
        bare = refused(socket, picture_bytes(), signals=True)
    maps = np.frombuffer(parts["maps"], np.uint8)
    assert head.projection is not None and head.projection.unit == "_blocks.5:9"
    assert maps.size == 16 * 112 * 112
    assert max(maps.max() - 128, 128 - maps.min()) == 127
    assert "choose a layer before it" in behind.problem.detail
    assert "name its method" in bare.problem.detail


def test_what_cannot_be_answered_is_told_and_the_connection_lives(client: TestClient) -> None:
    with connected(client) as socket:
        assert refused(socket, b"hello", id=3).problem.status == 422
        assert refused(socket, picture_bytes("GIF")).problem.detail.endswith("JPEG, PNG, WEBP")
        assert "0 to 79" in refused(socket, picture_bytes(), unit="_blocks.5:80").problem.detail
        assert "there are" not in refused(socket, image="ffffffffffff", unit="fc:1").problem.title
        assert "unknown" in str(refused(socket, unknown=1).problem.detail)
        socket.send_bytes(picture_bytes())
        assert "before it is sent" in json.loads(socket.receive_text())["problem"]["detail"]
        head, _ = answered(socket, picture_bytes("WEBP"))
    assert head.units == 80


def test_a_frame_over_the_limits_is_refused(served: Any) -> None:
    data = picture_bytes()
    with connected(served(upload_bytes=len(data) - 1)) as socket:
        assert refused(socket, data).problem.status == 413
        assert answered(socket, picture_bytes("WEBP"))[0].units == 80
    with connected(served(upload_pixels=96 * 96 - 1)) as socket:
        assert "9,215" in refused(socket, data).problem.detail


def test_a_busy_server_says_when_to_ask_again_and_answers_then(served: Any) -> None:
    client = served(forwards_waiting=0)
    with connected(client) as socket, client.app.state.app_state.admission.turn():
        busy = refused(socket, picture_bytes())
        assert (busy.problem.status, busy.retry_after_s) == (429, 2)
    with connected(client) as socket:
        assert answered(socket, picture_bytes())[0].units == 80


def test_pages_of_other_sites_are_refused_and_programs_let_in(client: TestClient) -> None:
    for origin in ("https://elsewhere.example", "null", "http://localhost.example", "http://localhost:81"):
        with pytest.raises(WebSocketDenialResponse) as denied, connected(client, Origin=origin):
            pass
        assert denied.value.status_code == 403
    for headers in ({"Origin": "http://localhost"}, {}):
        with connected(client, **headers) as socket:
            assert answered(socket, picture_bytes())[0].units == 80


def test_frames_need_the_scope_that_uploads_need(served: Any, key_file: Path) -> None:
    client = served(key_file=key_file, anonymous_read=True)
    for headers, status in (({}, 401), (bearer("reader"), 403)):
        with pytest.raises(WebSocketDenialResponse) as denied, connected(client, **headers):
            pass
        assert denied.value.status_code == status
    with connected(client, **bearer("worker")) as socket:
        assert answered(socket, picture_bytes())[0].units == 80


def test_an_unknown_atlas_is_refused_with_those_there_are(client: TestClient) -> None:
    path = LIVE.replace("tiny", "big")
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(f"ws://localhost{path}"):
        pass
    assert "there are tiny" in denied.value.json()["detail"]


def test_more_connections_than_the_limit_are_closed_with_a_reason_and_let_in_later(served: Any) -> None:
    client = served(live_at_once=1)
    with connected(client) as socket:
        assert answered(socket, picture_bytes())[0].units == 80
        with connected(client) as second, pytest.raises(WebSocketDisconnect) as closed:
            second.receive_text()
        assert (closed.value.code, "1 live pages" in closed.value.reason) == (1013, True)
    with connected(client) as socket:
        assert answered(socket, picture_bytes())[0].units == 80


def test_one_reader_holds_half_of_the_places(served: Any, key_file: Path) -> None:
    client = served(live_at_once=2, requests_per_s=100, key_file=key_file)
    with connected(client, **bearer("worker")) as socket:
        assert answered(socket, picture_bytes())[0].units == 80
        with connected(client, **bearer("worker")) as second, pytest.raises(WebSocketDisconnect) as closed:
            second.receive_text()
        assert (closed.value.code, "a reader's share" in closed.value.reason) == (1013, True)
        with connected(client, **bearer("owner")) as other:
            assert answered(other, picture_bytes())[0].units == 80


def test_a_connection_that_asks_nothing_is_closed(served: Any) -> None:
    with connected(served(live_idle_s=0.05)) as socket, pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_text()
    assert "connect again" in closed.value.reason


def test_nothing_of_a_frame_is_kept(served: Any, tiny_atlas: Path) -> None:
    def files() -> set[Path]:
        roots = (tiny_atlas, Path(tempfile.gettempdir()))
        return {path for root in roots for path in (root.rglob("*") if root == tiny_atlas else root.iterdir())}

    client = served()
    app_state = client.app.state.app_state
    with connected(client) as socket:
        answered(socket, picture_bytes(seed=77), unit="_blocks.0:3", method="gradient")
        before = files()
        for seed in range(2):
            answered(socket, picture_bytes(seed=seed), unit="_blocks.0:3", method="gradient")
    assert files() - before == set()
    assert app_state.uploads.total_bytes() == 0
    assert not app_state.atlases.newest("tiny").encoder._recent
    assert "unitscope_live_frame_seconds_count 3" in client.get("/metrics").text


def test_pages_lead_those_who_may_compute_to_live(client: TestClient, served: Any, key_file: Path) -> None:
    reading = served(key_file=key_file, anonymous_read=True)
    image = image_of(client, "blobs/003.jpg")["image_id"]
    for page in ("", "/layers/_blocks.5", "/layers/_blocks.5/units/3", f"/images/{image}"):
        assert "/a/tiny/live" in client.get(f"/a/tiny{page}").text, page
        assert "/a/tiny/live" not in reading.get(f"/a/tiny{page}").text, page
    assert reading.get("/a/tiny/live").status_code == 401


@pytest.mark.parametrize(("query", "unit"), [("unit=_blocks.0:7", "_blocks.0:7"), ("layer=_blocks.15", "_blocks.15:0")])
def test_the_page_begins_with_what_its_address_asks_for(client: TestClient, query: str, unit: str) -> None:
    assert f'data-unit="{unit}"' in client.get(f"/a/tiny/live?{query}").text
    assert 'data-unit="_blocks.' in client.get("/a/tiny/live").text
    image = image_of(client, "blobs/003.jpg")["image_id"]
    assert f'data-image="{image}" data-name="blobs/003.jpg"' in client.get(f"/a/tiny/live?image={image[:12]}").text
    assert client.get("/a/tiny/live?unit=_blocks.5:80").status_code == 404
