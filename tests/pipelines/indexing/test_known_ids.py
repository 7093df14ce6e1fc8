"""Ids of images whose forward has run are found, and what is no id is an error that names its part."""

import hashlib
import pickle

import numpy as np
import pyarrow as pa
import pytest

from unitscope_pipelines.indexing.known_ids import KnownIds
from unitscope_schemas.errors import AtlasError

IDS = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(500)]
ENDS_IN_ZEROS = ["ab" * 30 + "0000", "00" * 32, "ab" * 30 + "0001"]


def column(ids: list[str]) -> tuple[str, pa.ChunkedArray]:
    return "scanned/x.parquet", pa.chunked_array([pa.array(ids, pa.string())])


def test_an_id_is_known_or_not() -> None:
    known = KnownIds.of([column(IDS[:200]), column([]), column(IDS[100:300]), column(ENDS_IN_ZEROS)])
    assert len(known) == 303
    assert [image_id in known for image_id in IDS] == [True] * 300 + [False] * 200
    assert all(image_id in known for image_id in ENDS_IN_ZEROS)
    assert "ab" * 30 + "0002" not in known
    assert IDS[0] not in KnownIds()


def test_workers_take_them_without_a_copy() -> None:
    known, buffers = KnownIds.of([column(IDS)]), list[pickle.PickleBuffer]()
    document = pickle.dumps(known, protocol=5, buffer_callback=buffers.append)
    assert len(document) < 1_000
    assert sum(len(buffer.raw()) for buffer in buffers) == 32 * len(IDS)
    assert np.array_equal(pickle.loads(document, buffers=buffers).digests, known.digests)  # noqa: S301 - our own


@pytest.mark.parametrize("wrong", ["xyz", "ab" * 31, "ab" * 31 + "g0"])
def test_what_is_no_id_names_its_part(wrong: str) -> None:
    with pytest.raises(AtlasError, match=r"scanned/x\.parquet is damaged"):
        KnownIds.of([column([*IDS[:3], wrong])])
