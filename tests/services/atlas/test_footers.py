"""Footers of parts are remembered up to so many bytes, those that were asked for last."""

from typing import NamedTuple, cast

import pyarrow.parquet as pq
import pytest

from unitscope_services.atlas.parts import Footers


class Footer(NamedTuple):
    serialized_size: int


def test_the_footers_asked_for_last_are_remembered_up_to_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitscope_services.atlas.parts._FOOTER_BYTES", 100)
    read: list[str] = []

    def ask(name: str, size_bytes: int = 40) -> pq.FileMetaData:
        def read_footer() -> pq.FileMetaData:
            read.append(name)
            return cast(pq.FileMetaData, Footer(size_bytes))

        return footers.of(name, read_footer)

    footers = Footers()
    for name in "abab":
        assert ask(name).serialized_size == 40
    assert read == ["a", "b"]
    ask("c")  # of a and b, a was asked for longer ago
    ask("b")
    assert read == ["a", "b", "c"]
    ask("a")
    assert read[3:] == ["a"]
    ask("large", 1000)
    ask("large", 1000)
    assert read[4:] == ["large"], "one is held whatever its size"
