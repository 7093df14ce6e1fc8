"""Images of the corpus and uploads: one kind of question, one answer."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.pictures import blobs
from unitscope_schemas.answers.patches import ActivationMap, ExplainPage, NeighborBatch, NeighborPage
from unitscope_schemas.answers.served import ImagePage, Upload
from unitscope_schemas.questions import ExplainQuestion
from unitscope_services.queries.session import Session, Subject

API = "/api/v1/atlases/tiny"


def picture_bytes(kind: str = "PNG", seed: int = 1234, height: int = 96, width: int = 96) -> bytes:
    buffer = io.BytesIO()
    blobs(seed, height, width).save(buffer, kind)
    return buffer.getvalue()


def upload(client: TestClient, data: bytes, **headers: str) -> dict[str, Any]:
    answer = client.post(f"{API}/uploads", content=data, headers=headers)
    assert answer.status_code == 201, answer.text
    return Upload.model_validate(answer.json()).model_dump()


def image_of(client: TestClient, path: str) -> dict[str, Any]:
    row: dict[str, Any] = client.get(f"{API}/images", params={"path": path}).json()["rows"][0]
    return row


def test_images_are_listed_once_each(client: TestClient) -> None:
    found, cursor = [], ""
    while True:
        page = ImagePage.model_validate(client.get(f"{API}/images?k=7{cursor}").json())
        found += page.rows
        if page.next is None:
            break
        cursor = f"&cursor={page.next}"
    assert [row.image for row in found] == list(range(40))
    assert len(client.get(f"{API}/images?label=blobs").json()["rows"]) == 20


def test_either_name_of_a_copied_picture_leads_to_it(client: TestClient) -> None:
    assert image_of(client, "copies/same-bytes.jpg") == image_of(client, "blobs/001.jpg")


def test_skipped_files_are_listed_with_their_reason(client: TestClient) -> None:
    rows = client.get(f"{API}/skipped").json()["rows"]
    assert [row["path"] for row in rows] == ["stripes/truncated.jpg"]
    assert "truncated" in rows[0]["reason"]


def test_an_image_is_explained_as_by_the_library(client: TestClient, session: Session) -> None:
    image = image_of(client, "blobs/003.jpg")
    answer = ExplainPage.model_validate(client.get(f"{API}/images/{image['image_id']}/units?k=10").json())
    subject = Subject(session.atlas.find_image("blobs/003.jpg"), None)
    assert answer == session.explain(subject, ExplainQuestion(k=10))
    only = client.get(f"{API}/images/{image['image_id']}/units?layer=_blocks.0").json()["rows"]
    assert {row["layer"] for row in only} == {"_blocks.0"}


def test_a_map_has_its_maximum_where_the_peak_is_stored(client: TestClient) -> None:
    row = client.get(f"{API}/layers/_blocks.5/units/3/patches?k=1").json()["rows"][0]
    answer = client.get(f"{API}/images/{row['image_id']}/map?layer=_blocks.5&unit=3")
    found = ActivationMap.model_validate(answer.json())
    assert (found.row, found.col) == (row["row"], row["col"])
    assert found.maximum == pytest.approx(row["activation"], rel=1e-4)
    assert np.array(found.values).shape == (14, 14)
    assert client.get(f"{API}/images/{row['image_id']}/map?layer=_blocks.5&unit=80").status_code == 404


def test_the_nearest_patch_of_an_image_is_its_own(client: TestClient) -> None:
    image = image_of(client, "stripes/002.jpg")
    page = NeighborPage.model_validate(client.get(f"{API}/images/{image['image_id']}/neighbors?k=3").json())
    assert page.rows[0].image_id == image["image_id"]
    assert page.rows[0].score == pytest.approx(1, abs=1e-3)
    assert page.search.exact
    assert len(page.rows) == 3


def test_a_box_of_ones_own_is_searched_with_the_model(client: TestClient) -> None:
    image = image_of(client, "stripes/002.jpg")
    address = f"{API}/images/{image['image_id']}/neighbors?k=3&box="
    page = NeighborPage.model_validate(client.get(f"{address}10,10,60,70").json())
    assert page.query_box is not None
    assert tuple(page.query_box) == (10, 10, 60, 70)
    assert "not within" in client.get(f"{address}10,10,600,70").json()["detail"]
    assert "not '_blocks.5'" in client.get(f"{address}10,10,60,70&layer=_blocks.5").json()["detail"]


def test_an_upload_of_a_corpus_picture_gives_exactly_the_stored_rows(client: TestClient, tiny_corpus: Path) -> None:
    image = image_of(client, "blobs/005.jpg")
    made = upload(client, (tiny_corpus / "blobs/005.jpg").read_bytes())
    assert made["in_corpus"]
    assert made["image_id"] == image["image_id"]
    for question in ("units?k=30", "neighbors?k=5", "map?layer=_blocks.5&unit=3"):
        session = client.get(f"{API}/uploads/{made['id']}/{question}")
        assert session.json() == client.get(f"{API}/images/{image['image_id']}/{question}").json()
        assert session.headers["cache-control"] == "private, no-store"
        assert "etag" not in session.headers


def test_an_upload_from_outside_is_answered_by_the_model(client: TestClient) -> None:
    answer = client.post(f"{API}/uploads", content=picture_bytes())
    made = Upload.model_validate(answer.json())
    assert answer.headers["location"] == f"{API}/uploads/{made.id}"
    assert not made.in_corpus
    assert Upload.model_validate(client.get(answer.headers["location"]).json()) == made
    explained = ExplainPage.model_validate(client.get(f"{API}/uploads/{made.id}/units?k=5").json())
    assert len(explained.rows) == 5
    page = NeighborPage.model_validate(client.get(f"{API}/uploads/{made.id}/neighbors?box=5,5,50,50").json())
    assert len(page.rows) == 9
    shown = client.get(f"{API}/uploads/{made.id}/picture.png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown.content))), np.asarray(blobs(1234)))


def test_a_form_uploads_too(client: TestClient) -> None:
    answer = client.post(f"{API}/uploads", files={"file": ("mine.webp", picture_bytes("WEBP"))})
    assert answer.status_code == 201
    assert client.post(f"{API}/uploads", files={"other": ("mine.webp", b"x")}).status_code == 400


def test_a_deleted_upload_is_gone(client: TestClient) -> None:
    made = upload(client, picture_bytes())
    assert client.delete(f"{API}/uploads/{made['id']}").status_code == 204
    assert client.get(f"{API}/uploads/{made['id']}/units").status_code == 404
    assert client.delete(f"{API}/uploads/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"hello", "JPEG, PNG, WEBP"),
        (picture_bytes("BMP"), "JPEG, PNG, WEBP"),
        (picture_bytes("PNG")[:2000], "cannot be decoded"),
    ],
)
def test_what_is_no_usable_picture_is_refused(client: TestClient, data: bytes, said: str) -> None:
    answer = client.post(f"{API}/uploads", content=data)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_too_many_bytes_are_refused_whether_announced_or_not(served: Any) -> None:
    client = served(upload_bytes=10_000)
    data = picture_bytes(height=300, width=300)
    announced = client.post(f"{API}/uploads", content=data)
    parts = (data[start : start + 4096] for start in range(0, len(data), 4096))
    streamed = client.post(f"{API}/uploads", content=parts)
    form = client.post(f"{API}/uploads", files={"file": ("a.png", data)})
    for answer in (announced, streamed, form):
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert "limit of" in answer.json()["detail"]


def test_too_many_pixels_are_refused_before_decoding(served: Any) -> None:
    client = served(upload_pixels=5_000)
    answer = client.post(f"{API}/uploads", content=picture_bytes())
    assert answer.status_code == 422
    assert "limit of 5,000" in answer.json()["detail"]


def test_uploads_expire_and_the_newest_push_out_the_oldest(served: Any) -> None:
    client = served(uploads_kept=2)
    first, second, third = (upload(client, picture_bytes(seed=seed)) for seed in (1, 2, 3))
    assert client.get(f"{API}/uploads/{first['id']}").status_code == 404
    assert client.get(f"{API}/uploads/{second['id']}").status_code == 200
    assert client.get(f"{API}/uploads/{third['id']}").status_code == 200
    brief = served(upload_lifetime_s=0.001)
    gone = upload(brief, picture_bytes())
    assert brief.get(f"{API}/uploads/{gone['id']}").status_code == 404


def test_a_batch_answers_vectors_and_uploads(client: TestClient, session: Session) -> None:
    made = upload(client, picture_bytes())
    vector = session.search.vectors.vector(0, 0).astype(float).tolist()
    answer = client.post(f"{API}/neighbors", json={"vectors": [vector], "uploads": [made["id"]], "k": 4})
    batch = NeighborBatch.model_validate(answer.json())
    assert [len(page.rows) for page in batch.pages] == [4, 4]
    assert batch.pages[0].rows[0].score == pytest.approx(1, abs=1e-3)
    assert batch.pages[0].query_box is None
    one = client.get(f"{API}/uploads/{made['id']}/neighbors?k=4").json()
    assert batch.pages[1] == NeighborPage.model_validate(one)
    short = client.post(f"{API}/neighbors", json={"vectors": [[1.0, 2.0]]})
    assert "not 320 numbers" in short.json()["detail"]
    assert client.post(f"{API}/neighbors", json={}).status_code == 400


def test_forwards_beyond_the_queue_are_refused_with_a_time_to_wait(served: Any) -> None:
    client = served(forwards_waiting=0)
    image = image_of(client, "blobs/001.jpg")["image_id"]
    with client.app.state.app_state.admission.turn():
        answer = client.get(f"{API}/images/{image}/map?layer=_blocks.0&unit=0")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert client.get(f"{API}/images/{image}/map?layer=_blocks.0&unit=0").status_code == 200


def test_a_question_beyond_the_time_limit_is_stopped(served: Any) -> None:
    client = served(question_timeout_s=0.2)
    database = client.app.state.app_state.atlases.newest("tiny").atlas._database
    from unitscope_schemas.errors import BusyError

    with pytest.raises(BusyError, match=r"longer than 0\.2 s"):
        database.columns("SELECT sum(a.range * b.range) FROM range(1000000) a, range(100000) b", [])
    assert database.columns("SELECT 1 AS number", [])["number"].tolist() == [1]
