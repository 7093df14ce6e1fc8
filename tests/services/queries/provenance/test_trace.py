"""Every value can be traced to the bytes it rests on, and a changed byte shows as the link that it breaks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.tables import manifest_of, ranked_parts
from unitscope import open_atlas
from unitscope.cli import app
from unitscope_pipelines.storage.parts import write_model
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout
from unitscope_schemas.answers.provenance import Trace
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.questions import TopQuestion, TraceQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.provenance.digests import digests
from unitscope_services.queries.provenance.trace import trace
from unitscope_services.queries.session import Session

UNIT = UnitId("_blocks.5", 37)
LINKS = [
    *("picture", "placement", "input", "libraries", "code", "weights"),
    *("peak", "rank", "image", "shard", "manifest", "again"),
]


@pytest.fixture
def copied(tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path) -> tuple[Path, Path]:
    shutil.copytree(tiny_atlas, tmp_path / "atlas")
    shutil.copytree(tiny_corpus, tmp_path / "corpus")
    return tmp_path / "atlas", tmp_path / "corpus"


def states(chain: Trace) -> dict[str, str]:
    return {row.link: row.state for row in chain.rows}


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_every_exemplar_is_traced_to_its_picture_and_recorded_anew(tiny_atlas: Path) -> None:
    session = Session(tiny_atlas)
    for rank, row in enumerate(patches(session.atlas, UNIT, TopQuestion(k=3)).rows):
        chain = trace(session, UNIT, TraceQuestion(image=row.image_id))
        assert [link.link for link in chain.rows] == LINKS
        assert states(chain) == {**dict.fromkeys(LINKS, "holds"), "input": "computed"}
        assert (chain.stored, chain.rank) == (row.activation, rank)
        assert chain.now == pytest.approx(row.activation, rel=1e-4)
        assert chain.digest == manifest_of(tiny_atlas).digest


def test_parts_and_rows_that_a_trace_names_hold_the_value(tiny_atlas: Path) -> None:
    import pyarrow.parquet as pq

    session = Session(tiny_atlas)
    row = patches(session.atlas, UNIT, TopQuestion(k=9)).rows[7]
    chain = {link.link: link for link in trace(session, UNIT, TraceQuestion(image=row.path)).rows}
    for name in ("peak", "rank"):
        link = chain[name]
        assert link.path is not None and link.row is not None
        stored = pq.read_table(tiny_atlas / link.path, partitioning=None).slice(link.row, 1).to_pylist()[0]
        assert stored["unit"] == UNIT.channel
        assert stored["activation"] == np.float32(row.activation)
    image = chain["image"]
    assert image.path is not None and image.row is not None
    images = pq.read_table(tiny_atlas / image.path, partitioning=None)
    assert images["image_id"][image.row].as_py() == row.image_id


BREAKS: dict[str, Callable[[Session, Path, str], Path]] = {
    "picture": lambda session, corpus, path: corpus / path,
    "peak": lambda session, corpus, path: (
        Path(session.atlas.root) / session.atlas.manifest.shards[0].peaks[UNIT.layer].path
    ),
    "rank": lambda session, corpus, path: (
        Path(session.atlas.root) / ranked_parts(session.atlas.manifest, UNIT.layer)[UNIT.channel // 16].path
    ),
    "image": lambda session, corpus, path: (
        Path(session.atlas.root) / session.atlas.manifest.segments[0].tables.images.path
    ),
    "manifest": lambda session, corpus, path: Path(session.atlas.root) / layout.MANIFEST,
}


@pytest.mark.parametrize("link", BREAKS)
def test_a_flipped_bit_breaks_its_link_and_no_other(link: str, copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    session = Session(atlas, corpus=str(corpus))
    row = next(row for row in patches(session.atlas, UNIT, TopQuestion(k=40)).rows if len(row.path) > 3)
    image = session.atlas.find_image(row.image_id)
    if link == "peak":
        receipts = [one for one in session.atlas.manifest.shards if one.shard == image.shard]
        flip(atlas / receipts[0].peaks[UNIT.layer].path)
    else:
        flip(BREAKS[link](session, corpus, row.path))
    chain = trace(session, UNIT, TraceQuestion(image=row.image_id))
    assert chain.broken == [link]


def test_other_weights_break_their_link_and_nothing_is_recorded_anew(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    manifest = manifest_of(atlas)
    other = manifest.model.model_copy(update={"weights_digest": "0" * 64})
    write_model(store_of(atlas), layout.MANIFEST, manifest.model_copy(update={"model": other}))
    session = Session(atlas, corpus=str(corpus))
    image = session.atlas.catalogue.rows([0])[0]
    chain = trace(session, UNIT, TraceQuestion(image=image.image_id))
    assert (chain.broken, chain.now, states(chain)["again"]) == (["weights"], None, "unknown")


def test_other_code_of_the_same_version_breaks_its_link(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    manifest = manifest_of(atlas)
    shards = [receipt.model_copy(update={"code": "1" * 64}) for receipt in manifest.shards]
    write_model(store_of(atlas), layout.MANIFEST, manifest.model_copy(update={"shards": shards}))
    session = Session(atlas, corpus=str(corpus))
    chain = trace(session, UNIT, TraceQuestion(image=session.atlas.catalogue.rows([0])[0].image_id))
    assert chain.broken == ["code"]


def test_a_value_that_was_changed_and_sealed_anew_is_not_recorded_anew(copied: tuple[Path, Path]) -> None:
    """What no digest tells, the forward does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from unitscope_pipelines.storage.parts import write_table

    atlas, corpus = copied
    manifest = manifest_of(atlas)
    receipt = manifest.shards[0]
    part = receipt.peaks[UNIT.layer]
    table = pq.read_table(atlas / part.path, partitioning=None)
    column = table.schema.get_field_index("activation")
    doubled = pa.array(2 * table["activation"].to_numpy())
    made = write_table(
        store_of(atlas), part.path, table.set_column(column, table.schema[column], doubled), 16 * receipt.forward_count
    )
    shards = [receipt.model_copy(update={"peaks": {**receipt.peaks, UNIT.layer: made}}), *manifest.shards[1:]]
    write_model(store_of(atlas), layout.MANIFEST, manifest.model_copy(update={"shards": shards}))
    session = Session(atlas, corpus=str(corpus))
    image = next(one for one in session.atlas.catalogue.rows(range(40)) if one.shard == receipt.shard)
    chain = trace(session, UNIT, TraceQuestion(image=image.image_id))
    assert chain.broken == ["rank", "again"]


def test_a_digest_says_what_it_is_and_what_rests_on_it(tiny_atlas: Path) -> None:
    atlas = Session(tiny_atlas).atlas
    manifest = atlas.manifest
    known = {part.sha256: part.path for part in manifest.parts()}
    for digest, path in known.items():
        assert (digest, path) in {(row.digest, row.name) for row in digests(atlas, digest[:12].upper()).rows}
    image = atlas.catalogue.rows([3])[0]
    assert {row.name for row in digests(atlas, image.image_id[:20]).rows} == {image.path}
    assert {row.kind for row in digests(atlas, str(manifest.digest)).rows} == {"manifest"}
    assert {row.kind for row in digests(atlas, manifest.model.weights_digest).rows} == {"weights"}
    with pytest.raises(NotFoundError, match="nothing of version"):
        digests(atlas, "0" * 64)
    with pytest.raises(UsageError, match="is no digest"):
        digests(atlas, "no")


def test_the_command_traces_and_exits_with_4_where_a_link_is_broken(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    session = Session(atlas, corpus=str(corpus))
    row = patches(session.atlas, UNIT, TopQuestion(k=1)).rows[0]
    words = ["trace", str(atlas), str(UNIT), row.image_id[:12], "--corpus", str(corpus)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert f"stored {row.activation:.6g}, now {row.activation:.6g}" in done.stderr
    digest = CliRunner().invoke(app, ["trace", str(atlas), row.image_id[:12]])
    assert row.path in digest.stdout
    flip(corpus / row.path)
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, "broken: picture" in done.stderr) == (4, True)
    missing = CliRunner().invoke(app, ["trace", str(atlas), str(UNIT)])
    assert isinstance(missing.exception, UsageError)
    assert "on which image?" in str(missing.exception)


def test_a_program_traces_too(tiny_atlas: Path) -> None:
    atlas = open_atlas(str(tiny_atlas))
    image = atlas.top(str(UNIT), k=1)["image_id"][0].as_py()
    table = atlas.trace(str(UNIT), image=image)
    assert table["link"].to_pylist() == LINKS
    assert atlas.digests(image)["kind"].to_pylist() == ["image"]
