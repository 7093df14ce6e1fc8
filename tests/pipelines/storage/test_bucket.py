"""Objects of a store are listed, asked for and read with the fewest requests, and what is refused is said."""

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.storage.filesystem import Folder
from unitscope_pipelines.storage.object_stores import bucket
from unitscope_pipelines.storage.object_stores.bucket import Bucket, s3_client
from unitscope_pipelines.storage.originals import Originals
from unitscope_schemas.errors import CorpusError

COUNT = 1_100
NAMES = [f"set {number // 100:02d}/é{number:05d}.jpg" for number in range(COUNT)]


@pytest.fixture(scope="module")
def many(object_store: Any) -> Iterator[str]:
    """The address of a bucket of many small objects."""
    made = object_store.Bucket("many")
    made.create()
    for name in [*NAMES, "set 03/", "other/x.jpg", "list.csv"]:
        made.put_object(
            Key=f"below/{name}",
            Body=b"path\n" + "\n".join(NAMES[::2]).encode() if name == "list.csv" else name.encode(),
        )
    made.put_object(Key="long.bin", Body=bytes(range(256)) * 40)
    yield "s3://many/below"
    made.objects.delete()
    made.delete()


@pytest.fixture
def requests() -> Iterator[Counter[str]]:
    """Counts of the requests of this process by their kinds."""
    counts: Counter[str] = Counter()
    events = s3_client(False).meta.events

    def count(event_name: str, **_: object) -> None:
        counts[event_name.rpartition(".")[2]] += 1

    events.register("before-send.s3", count)
    yield counts
    events.unregister("before-send.s3", count)


def test_a_folder_is_listed_a_thousand_objects_at_a_time_and_in_order(many: str, requests: Counter[str]) -> None:
    found = [file.path for file in Folder(many).walk()]
    assert found == sorted([*NAMES, "other/x.jpg", "list.csv"])
    assert requests == {"ListObjectsV2": 2}


def test_a_dense_list_is_asked_for_by_pages(many: str, requests: Counter[str]) -> None:
    wanted = NAMES[::2]
    states = Folder(many).sizes(wanted)
    assert [state and (state.path, state.size_bytes) for state in states] == [
        (name, len(name.encode())) for name in wanted
    ]
    assert requests == {"ListObjectsV2": 2}


def test_a_sparse_list_costs_no_more_requests_than_paths(many: str, requests: Counter[str]) -> None:
    wanted = [NAMES[0], NAMES[500], NAMES[-1], "gone.jpg"]
    assert [state is not None for state in Folder(many).sizes(wanted)] == [True, True, True, False]
    assert requests.total() <= 4
    requests.clear()
    assert Folder(many).sizes([NAMES[7]])[0] is not None
    assert requests == {"HeadObject": 1}


def test_whole_names_are_asked_for_by_bucket(many: str, requests: Counter[str]) -> None:
    whole = [f"s3://many/below/{name}" for name in NAMES[:900]]
    states = Folder("/").sizes([*whole, "s3://many/below/none.jpg", "s3://no-such-bucket/x.jpg"])
    assert [state and state.path for state in states] == [*whole, None, None]
    assert requests.total() <= 4


def test_names_that_no_object_has_are_none_of_them(many: str) -> None:
    odd = [
        "",
        "é" * 600,
        "\ud800",
        "a\x00b",
        "//",
        "../below/list.csv",
        "s3://many",
        "s3://many/",
        "s3://m any/x",
        "x" * 1_024,
    ]
    states = Folder(many).sizes([*odd, "list.csv"])
    assert [state is not None for state in states] == [False] * len(odd) + [True]
    for name in odd:
        with pytest.raises(OSError, match=r"no|its address"):
            Folder(many).read(name)


def test_who_may_not_list_asks_for_each(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_self: Bucket, _after: str) -> None:
        raise PermissionError(13, "AccessDenied")

    monkeypatch.setattr(Bucket, "_page", forbidden)
    assert None not in Folder(many).sizes(NAMES[:5])


def test_a_store_that_lists_late_or_in_another_order_loses_nothing(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Bucket._page

    def late(self: Bucket, after: str) -> tuple[dict[str, Any], bool]:
        page, is_last = own(self, after)
        return dict(list(page.items())[::3]), is_last

    monkeypatch.setattr(Bucket, "_page", late)
    assert None not in Folder(many).sizes(NAMES[:40])


def test_a_list_of_many_paths_costs_a_few_requests_before_work(many: str, requests: Counter[str]) -> None:
    assert len(list_corpus(f"{many}/list.csv").files) == len(NAMES[::2])
    assert requests.total() <= 5


def test_a_picture_is_one_request(many: str, requests: Counter[str]) -> None:
    originals = Originals(many)
    assert originals.read(f"file:{NAMES[3]}") == NAMES[3].encode()
    assert originals.read(f"range:2+3:{NAMES[3]}") == NAMES[3].encode()[2:5]
    assert requests == {"GetObject": 2}
    for address in (f"range:2+3000:{NAMES[3]}", f"range:9000+2:{NAMES[3]}"):
        with pytest.raises(OSError, match="the file ends early"):
            originals.read(address)
    with pytest.raises(FileNotFoundError):
        originals.read("file:none.jpg")


def test_an_open_object_is_read_at_any_position(many: str, requests: Counter[str]) -> None:
    data = bytes(range(256)) * 40
    with Folder("s3://many").open("long.bin", 1_000) as file:
        assert (file.read(5), file.seek(-3, io.SEEK_END), file.read()) == (data[:5], len(data) - 3, data[-3:])
        assert (file.seek(300), file.read(700), file.seek(2, io.SEEK_CUR), file.read(1)) == (
            300,
            data[300:1_000],
            1_002,
            data[1_002:1_003],
        )
        assert file.seek(20_000) == 20_000
        assert file.read(1) == b""
    assert requests["HeadObject"] == 1
    assert requests["GetObject"] <= 5


def test_what_is_not_there_or_refused_is_said(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CorpusError, match="there is no object below it"):
        list_corpus("s3://many/nowhere")
    with pytest.raises(CorpusError, match="no such bucket"):
        list_corpus("s3://no-such-bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(CorpusError, match="the store does not answer"):
        list_corpus("s3://many/below")


@pytest.mark.parametrize("key", ["a", "a/b", "é", "a\ue000", "a\x00", "a\x01", "0"])
def test_a_page_begins_right_before_a_key(key: str) -> None:
    before = bucket._before(key)
    before.encode()
    stem, code = key[:-1], ord(key[-1])
    assert before < key
    assert all(stem + chr(other) + "zz" < before for other in (code - 1, code - 0x1000) if 0 <= other < 0xD800)
