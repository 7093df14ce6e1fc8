"""Footers of parts are remembered up to so many bytes, those that were asked for last."""

from typing import NamedTuple, cast

import pyarrow.parquet as pq
import pytest

from unitscope_schemas.entries.part import Part
from unitscope_services.atlas.parts import Footers


class Footer(NamedTuple):
    serialized_size: int


def test_the_footers_asked_for_last_are_remembered_up_to_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitscope_services.atlas.parts._FOOTER_BYTES", 100)
    read: list[str] = []

    def read_footer(part: Part) -> pq.FileMetaData:
        read.append(part.path)
        return cast(pq.FileMetaData, Footer(part.size_bytes))

    footers = Footers(read_footer)
    parts = {name: Part(path=f"units/{name}", rows=1, size_bytes=40, sha256="0" * 64) for name in "abc"}
    for name in "abab":
        assert footers(parts[name]).serialized_size == 40
    assert read == ["units/a", "units/b"]
    footers(parts["c"])  # of a and b, a was asked for longer ago
    footers(parts["b"])
    assert read == ["units/a", "units/b", "units/c"]
    footers(parts["a"])
    assert read[3:] == ["units/a"]
    large = Part(path="units/large", rows=1, size_bytes=1000, sha256="0" * 64)
    footers(large)
    footers(large)
    assert read[4:] == ["units/large"], "one is held whatever its size"
