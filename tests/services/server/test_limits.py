"""What readers may cost: turns by kind, time limits that stop work, rates, and a floor of memory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.services.conftest import UNIT, bearer
from unitscope_schemas.errors import BusyError, OverloadError
from unitscope_schemas.questions import (
    BandsQuestion,
    EigenQuestion,
    ExplainQuestion,
    FacetsQuestion,
    NeighborsQuestion,
    SelectivityQuestion,
    TopQuestion,
)
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.deadlines import question_limit
from unitscope_services.figures.conv_filters import filter_sheet
from unitscope_services.figures.eigen import eigen_patches
from unitscope_services.figures.sprites import SheetAddress, make_sheet
from unitscope_services.queries import exemplars, facets, labels, local_maxima
from unitscope_services.queries.session import Session, Subject
from unitscope_services.server.limits.admission import Admission, patience
from unitscope_services.server.limits.costs import COSTS, Cost, Kind, Turns
from unitscope_services.server.limits.memory import MemoryFloor, available_bytes
from unitscope_services.server.limits.rates import Buckets, Rates, account_at
from unitscope_services.server.settings import Settings
from unitscope_services.web.serving import usual_rate

API = "/api/v1/atlases/tiny"
THREE = UnitId("_blocks.5", 3)
COSTLY = {
    "eigen": f"{UNIT}/eigen?k=30&size=20",
    "facets": f"{UNIT}/facets",
    "weights": f"{API}/layers/first/filters/sheet.png",
    "compute": f"{API}/images/IMAGE/map?layer=_blocks.5&unit=3",
    "exact": f"{API}/images/IMAGE/neighbors?exact=true",
    "scan": f"{UNIT}/selectivity",
    "sheet": f"{API}/layers/_blocks.5/sprites/patch.webp",
    "picture": f"{API}/patches/IMAGE.png?unit=_blocks.5:3&size=99",
}
"""An address of every kind that is costly and asked by GET."""


def turns_of(cost: Cost, floor_bytes: int = 0) -> Turns:
    """Turns that cost the same for all kinds."""
    return Turns(dict.fromkeys(COSTS, cost), MemoryFloor(floor_bytes), Rates(Settings()))


@pytest.fixture
def limited(client: TestClient) -> Iterator[Callable[[Turns], TestClient]]:
    """The shared server with other turns for one test, and nothing remembered."""
    app_state = client.app.state.app_state  # type: ignore[attr-defined]
    before = app_state.turns, app_state.picture_memory

    def limit(turns: Turns) -> TestClient:
        app_state.turns = turns
        return client

    yield limit
    app_state.turns, app_state.picture_memory = before


@pytest.fixture(scope="module")
def image(client: TestClient) -> str:
    """The id of an image of the corpus."""
    return str(client.get(f"{API}/images?k=1").json()["rows"][0]["image_id"])


def image_subject(session: Session) -> Subject:
    return Subject(session.atlas.image_list(exemplars.ImageFilter(), None, 1)[0], None)


LONG: dict[str, Callable[[Session], object]] = {
    "eigen-patches": lambda session: eigen_patches(session, THREE, EigenQuestion(k=30, size=20)),
    "facets": lambda session: facets.facets(session, THREE, FacetsQuestion()),
    "grouping": lambda session: facets.group(session.search.vectors.vectors(np.arange(40), np.zeros(40, np.int64))),
    "filters": lambda session: filter_sheet(session, "_blocks.0._depthwise_conv"),
    "map": lambda session: session.activation_map(image_subject(session), THREE),
    "further peaks": lambda session: local_maxima.top(session, THREE, TopQuestion(per_image=3)),
    "exact neighbours": lambda session: session.search.vectors.best(session.search.vectors.vector(0, 0), 9, exact=True),
    "explain": lambda session: session.explain(image_subject(session), ExplainQuestion(where=("label = blobs",))),
    "embedding": lambda session: session.neighbors(image_subject(session), NeighborsQuestion(box="0,0,40,40")),
    "selectivity": lambda session: labels.selectivity(session.atlas, THREE, SelectivityQuestion()),
    "bands": lambda session: exemplars.bands(session.atlas, THREE, BandsQuestion()),
    "weights": lambda session: session.encoder.filters("first"),
    "sheet": lambda session: make_sheet(session, SheetAddress("_blocks.5", "patch", 0), nullcontext),
}


@pytest.mark.parametrize("question", LONG.values(), ids=LONG)
def test_whatever_takes_long_stops_at_its_next_step(question: Callable[[Session], object], session: Session) -> None:
    question(session)
    with question_limit(0, "ask for fewer things"), pytest.raises(BusyError, match="longer than 0 s; ask for fewer th"):
        question(session)


def test_the_outer_limit_counts_where_it_ends_first(session: Session) -> None:
    with question_limit(0, "outer"), question_limit(60, "inner"), pytest.raises(BusyError, match="outer"):
        exemplars.bands(session.atlas, THREE, BandsQuestion())
    with question_limit(60, "outer"), question_limit(0, "inner"), pytest.raises(BusyError, match="inner"):
        exemplars.bands(session.atlas, THREE, BandsQuestion())


def test_a_statement_to_the_database_ends_with_its_question(served: Any) -> None:
    database = served(question_timeout_s=60).app.state.app_state.atlases.newest("tiny").atlas._database
    with question_limit(0.2, "ask for less"), pytest.raises(BusyError, match=r"longer than 0\.2 s; ask for less"):
        database.columns("SELECT sum(a.range * b.range) FROM range(1000000) a, range(100000) b", [])


@pytest.mark.parametrize("address", COSTLY.values(), ids=COSTLY)
def test_an_answer_that_takes_too_long_is_503_and_says_what_would_do(
    address: str, limited: Callable[[Turns], TestClient], image: str
) -> None:
    asked = address.replace("IMAGE", image) + ("&" if "?" in address else "?") + "v=now"
    client = limited(turns_of(Cost(1, 1, 1, 0, "ask for fewer of them")))
    answer = client.get(asked, headers={"Cache-Control": "no-cache"})
    assert answer.status_code == 503, answer.text
    assert "takes longer than 0 s; ask for fewer of them" in answer.json()["detail"]


@pytest.mark.parametrize("kind", COSTLY)
def test_a_kind_whose_turns_are_taken_is_refused_at_once_and_no_other_is(
    kind: Kind, limited: Callable[[Turns], TestClient], image: str
) -> None:
    taken = {**COSTS, kind: replace(COSTS[kind], running=0, waiting=0)}
    client = limited(Turns(taken, MemoryFloor(0), Rates(Settings())))
    client.app.state.app_state.picture_memory = type(client.app.state.app_state.picture_memory)()  # type: ignore[attr-defined]
    answer = client.get(COSTLY[kind].replace("IMAGE", image))
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert f"kind {kind}" in answer.json()["detail"]
    assert client.get(UNIT).status_code == 200


def test_what_is_known_passes_while_every_turn_is_taken(limited: Callable[[Turns], TestClient], image: str) -> None:
    picture, rows = f"{API}/patches/{image}.webp?unit=_blocks.5:3&size=64", f"{UNIT}/patches"
    client = limited(Turns(COSTS, MemoryFloor(0), Rates(Settings())))
    first, known = client.get(picture), client.get(rows).headers["etag"]
    limited(turns_of(Cost(0, 0, 1, 1, "")))
    assert client.get(picture).content == first.content
    assert client.get(rows, headers={"If-None-Match": known}).status_code == 304
    assert client.get("/livez").status_code == 200
    assert client.get("/static/unitscope.css").status_code == 200
    assert client.get(rows).status_code == 429


def test_every_answer_is_made_in_a_turn(limited: Callable[[Turns], TestClient], image: str) -> None:
    client = limited(turns_of(Cost(0, 0, 1, 1, "")))
    client.app.state.app_state.picture_memory = type(client.app.state.app_state.picture_memory)()  # type: ignore[attr-defined]
    names = {
        "atlas": "tiny",
        "layer": "_blocks.5",
        "channel": "3",
        "image": image,
        "number": "1",
        "kind": "png",
        "digest": image[:9],
        "collection": "mine",
    }
    given = {"layer": "_blocks.5", "unit": "3", "row": "0", "col": "0", "label": "blobs", "image": image}
    known = client.app.openapi()["paths"]  # type: ignore[attr-defined]
    pages = (
        "",
        "/skipped",
        "/filters",
        "/layers/{layer}",
        "/layers/{layer}/units/{channel}",
        "/images/{image}",
        "/live",
        "/annotations",
        "/collections/{collection}",
    )
    parts = ("/layers/{layer}/units/{channel}/" + part for part in ("similar", "facets", "bands", "eigen"))
    made = 0
    for path in ("/", *(f"/a/{{atlas}}{page}" for page in (*pages, *parts)), *known):
        operation = known.get(path, {}).get("get", {"parameters": []})
        if path in known and ("get" not in known[path] or not path.startswith("/api/v1/atlases")):
            continue
        if any(f"{{{name}}}" in path for name in ("upload", "comparison", "direction", "name")):
            continue
        needed = [entry["name"] for entry in operation.get("parameters", ()) if entry["in"] == "query"]
        query = {name: given[name] for name in needed if name in given}
        if "/patches/{image}" in path:
            query = {"box": "0,0,9,9"}
        answer = client.get(path.format(**names, what="patch"), params=query)
        assert answer.status_code == 429, (path, query, answer.text)
        made += 1
    assert made > 35


def test_who_waits_too_long_for_a_turn_is_refused() -> None:
    turns = Admission(running=1, waiting=1, wait_s=0.05, what="pictures")
    with (
        turns.turn(),
        pytest.raises(OverloadError, match=r"no turn came within 0\.05 s: pictures take long"),
        turns.turn(),
    ):
        pass
    assert turns.present == 0
    with turns.turn():
        assert turns.present == 1


def test_a_job_waits_for_its_forward_as_long_as_it_takes() -> None:
    turns, entered = Admission(running=1, waiting=0, wait_s=0.01), threading.Event()

    def job() -> None:
        with patience(), turns.turn():
            entered.set()

    with turns.turn():
        thread = threading.Thread(target=job)
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(10)
    thread.join()


def test_there_are_threads_for_all_that_may_wait_and_more(client: TestClient) -> None:
    turns = client.app.state.app_state.turns  # type: ignore[attr-defined]
    assert turns.most_present == sum(cost.running + cost.waiting for cost in COSTS.values()) < 400
    assert all(0 < cost.run_s <= 60 and 0 < cost.wait_s <= 30 and cost.advice for cost in COSTS.values())


def test_costly_work_is_refused_while_memory_is_short(served: Any, image: str) -> None:
    client = served(memory_floor_bytes=10**15)
    for kind in ("eigen", "compute", "picture"):
        answer = client.get(COSTLY[kind].replace("IMAGE", image))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "MB of memory left" in answer.json()["detail"]
    assert client.get(UNIT).status_code == 200


def test_memory_left_is_the_least_of_the_machine_and_the_groups_around_this_process(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert available_bytes(tmp_path) is None
    write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert available_bytes(tmp_path) == 5000 * 1024
    write("proc/self/cgroup", "0::/outer/inner\n")
    write("sys/fs/cgroup/outer/inner/memory.max", "max\n")
    write("sys/fs/cgroup/outer/memory.max", "3000000\n")
    write("sys/fs/cgroup/outer/memory.current", "2500000\n")
    write("sys/fs/cgroup/outer/memory.stat", "anon 1\ninactive_file 400000\n")
    assert available_bytes(tmp_path) == 3_000_000 - 2_500_000 + 400_000
    write("proc/self/cgroup", "5:memory:/job\n")
    write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "700000\n")
    write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "600000\n")
    write("sys/fs/cgroup/memory/job/memory.stat", "total_inactive_file 5000\n")
    assert available_bytes(tmp_path) == 105_000


def test_an_address_that_asks_too_often_waits_and_life_is_told_all_the_same(served: Any) -> None:
    client = served(requests_per_s=1)
    answers = [client.get(UNIT) for _ in range(12)]
    assert [answer.status_code for answer in answers[:10]] == [200] * 10
    assert answers[-1].status_code == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200


def test_each_key_has_an_account_of_its_own(served: Any, key_file: Path) -> None:
    client = served(requests_per_s=1, key_file=key_file)
    answers = [client.get(UNIT, headers=bearer("reader")) for _ in range(12)]
    assert answers[-1].status_code == 429
    assert client.get(UNIT, headers=bearer("worker")).status_code == 200


def test_unknown_keys_of_an_address_are_soon_not_looked_at_any_more(served: Any, key_file: Path) -> None:
    client = served(key_file=key_file)
    guesses = [client.get(UNIT, headers={"Authorization": f"Bearer {number}"}).status_code for number in range(32)]
    assert guesses[:30] == [401] * 30
    assert guesses[-1] == 429
    refused = client.get(UNIT, headers=bearer("reader"))
    assert refused.status_code == 429, "a right guess is told no sooner than a wrong one"
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get(UNIT).status_code == 401, "nothing is guessed without a key"


def test_work_is_counted_by_account_and_refused_until_its_share_is_back() -> None:
    now = [0.0]
    rates = Rates(Settings(requests_per_s=5), clock=lambda: now[0])

    def work(seconds: float) -> None:
        rates.begin_work("key a")
        with rates.working("key a"):
            now[0] += seconds

    work(50)
    work(70)
    with pytest.raises(OverloadError, match="60 s of work") as refused:
        rates.begin_work("key a")
    rates.begin_work("key b")
    now[0] += refused.value.retry_after_s or 0
    rates.begin_work("key a")


def test_accounts_are_bounded_in_number() -> None:
    buckets = Buckets(1, 1)
    for number in range(10_500):
        buckets.take(f"address {number}")
    assert len(buckets) == 10_000


def test_a_page_of_a_hundred_thumbnails_is_let_in_at_once() -> None:
    rates = Rates(Settings(requests_per_s=usual_rate("0.0.0.0", keys_are_used=True)), clock=lambda: 0.0)
    for _ in range(101):
        rates.ask("address 192.0.2.1")


def test_there_is_a_rate_wherever_others_may_ask() -> None:
    assert usual_rate("127.0.0.1", keys_are_used=False) == usual_rate("localhost", keys_are_used=False) == 0
    assert usual_rate("127.0.0.1", keys_are_used=True) == usual_rate("0.0.0.0", keys_are_used=False) > 0


def test_a_household_is_one_account() -> None:
    assert account_at("192.0.2.7") == account_at("::ffff:192.0.2.7") == "address 192.0.2.7"
    assert account_at("2001:db8::1") == account_at("2001:db8::ffff") == "network 2001:db8::/64"
    assert account_at("testclient") == "address testclient"
