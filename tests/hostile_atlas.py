"""Atlases as a stranger would send them: a good small one, with one thing in it that leads out, lies or waits."""

import hashlib
import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.tables import named
from unitscope_schemas import layout, tables

WORD = "what-nobody-may-see-7f3a"
LAYER = "_blocks.5"


class Hostile:
    """A copy of an atlas and its corpus in a folder `inside`, and what may be neither read nor changed in `outside`."""

    def __init__(self, atlas: Path, corpus: Path, folder: Path) -> None:
        self.is_allowed = True
        """Whether who serves it allows the corpus beside it."""
        self.computes = False
        """Whether the model is asked too, which takes seconds."""
        self.outside, self.corpus = folder / "outside", folder / "inside" / "corpus"
        self.atlas: Path = shutil.copytree(atlas, folder / "inside" / "tiny")
        shutil.copytree(corpus, self.corpus)
        shutil.copytree(corpus, self.outside / "corpus")
        (self.outside / "secret").write_text(WORD)
        os.mkfifo(self.outside / "pipe")
        with self.manifest() as manifest:
            _replace(manifest, str(corpus), str(self.corpus))

    @contextmanager
    def manifest(self) -> Iterator[dict[str, Any]]:
        """Give the manifest to be changed."""
        path = self.atlas / layout.MANIFEST
        content = json.loads(path.read_text())
        content.pop("digest", None)  # as earlier versions wrote it: the digest would hide all that is changed
        yield content
        path.write_text(json.dumps(content))

    def part(self, *steps: str | int) -> Path:
        """Return the file of a part, by the steps that lead to it in the manifest."""
        content: Any = json.loads((self.atlas / layout.MANIFEST).read_text())
        for step in steps:
            content = content[step]
        return self.atlas / str(content["path"])

    def sealed(self, *steps: str | int, rows: int | None = None) -> None:
        """Let the manifest hold the digest that a changed part has now."""
        path = self.part(*steps)
        data = path.read_bytes()
        with self.manifest() as content:
            for place in named(content, path.relative_to(self.atlas).as_posix()):
                place |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
                place |= {} if rows is None else {"rows": rows}

    def addresses(self, write: Callable[[str], str]) -> None:
        """Give every picture another address, by its path; its digest stays, so that only its place is another."""
        table = self.rows(*IMAGES)
        texts = pa.array([write(text) for text in table["path"].to_pylist()], table.schema.field("address").type)
        self.write(with_column(table, "address", texts), *IMAGES)

    def names(self, write: Callable[[str], str]) -> None:
        """Give every picture and every label another name."""
        for steps in (IMAGES, FILES):
            table = self.rows(*steps)
            texts = pa.array([write(text) for text in table["path"].to_pylist()], table.schema.field("path").type)
            self.write(with_column(table, "path", texts), *steps)
        table = self.rows(*IMAGES)
        labels = table["labels"].chunk(0)
        names = pa.array([write(name) for name in labels.values.dictionary.to_pylist()], pa.large_string())
        coded = pa.DictionaryArray.from_arrays(labels.values.indices, names)
        self.write(with_column(table, "labels", pa.LargeListArray.from_arrays(labels.offsets, coded)), *IMAGES)

    def rows(self, *steps: str | int) -> pa.Table:
        """Return the rows of an Arrow part."""
        with pa.OSFile(str(self.part(*steps))) as source:
            return pa.ipc.open_file(source).read_all().combine_chunks()

    def write(self, table: pa.Table, *steps: str | int) -> None:
        """Write other rows of an Arrow part."""
        path = self.part(*steps)
        path.unlink()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self.sealed(*steps)

    def layer(self) -> int:
        """Return the position of the layer that is asked about."""
        layers = json.loads((self.atlas / layout.MANIFEST).read_text())["layers"]
        return next(number for number, layer in enumerate(layers) if layer["spec"]["name"] == LAYER)

    def snapshot(self) -> dict[str, tuple[int, int, int]]:
        """Return what tells a changed file outside from an unchanged one."""
        states = {path: path.lstat() for path in self.outside.rglob("*")}
        return {str(path): (state.st_size, state.st_mtime_ns, state.st_mode) for path, state in states.items()}


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Return a table with other values in a column."""
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def _replace(content: dict[str, Any], old: str, new: str) -> None:
    replaced = json.loads(json.dumps(content).replace(old, new))
    content.clear()
    content |= replaced


def _set(*steps: str | int, to: object) -> Callable[[Hostile], None]:
    def change(hostile: Hostile) -> None:
        with hostile.manifest() as content:
            place: Any = content
            for step in steps[:-1]:
                place = place[step]
            place[steps[-1]] = str(to).format(outside=hostile.outside) if isinstance(to, str) else to

    return change


def _root(root: str) -> Callable[[Hostile], None]:
    def change(hostile: Hostile) -> None:
        with hostile.manifest() as content:
            _replace(content, str(hostile.corpus), root.format(outside=hostile.outside))

    return change


def _picture(address: str) -> Callable[[Hostile], None]:
    return lambda hostile: hostile.addresses(lambda path: address.format(outside=hostile.outside, path=path))


def _picture_at(make: Callable[[Path, Hostile], object]) -> Callable[[Hostile], None]:
    """Every picture is one name in the corpus, at which there is what `make` puts there."""

    def change(hostile: Hostile) -> None:
        make(hostile.corpus / "odd", hostile)
        hostile.addresses(lambda path: "file:odd")

    return change


def _linked_folder(hostile: Hostile) -> None:
    (hostile.corpus / "linked").symlink_to(hostile.outside / "corpus")
    hostile.addresses(lambda path: f"file:linked/{path}")


def _part_is(make: Callable[[Path, Hostile], object], *steps: str | int) -> Callable[[Hostile], None]:
    def change(hostile: Hostile) -> None:
        path = hostile.part(*steps)
        path.unlink()
        make(path, hostile)

    return change


def _units(change_table: Callable[[pa.Table], pa.Table]) -> Callable[[Hostile], None]:
    def change(hostile: Hostile) -> None:
        steps = ("layers", hostile.layer(), "units")
        path = hostile.part(*steps)
        table = change_table(pq.read_table(path))
        path.unlink()
        pq.write_table(table, path)
        hostile.sealed(*steps)

    return change


def _written(content: bytes, *steps: str | int) -> Callable[[Hostile], None]:
    def change(hostile: Hostile) -> None:
        hostile.part(*steps).write_bytes(content)
        hostile.sealed(*steps)

    return change


class _Calls:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/unitscope-pickle-ran",)


def _pickled_vectors(hostile: Hostile) -> None:
    np.save(hostile.part("segments", 0, "patches", "vectors"), np.array([_Calls()], object), allow_pickle=True)
    hostile.sealed("segments", 0, "patches", "vectors")


def _few_vectors(hostile: Hostile) -> None:
    np.save(hostile.part("segments", 0, "patches", "vectors"), np.zeros((1, 3), np.float16))
    hostile.sealed("segments", 0, "patches", "vectors")


def _index(write: Callable[[Path, int, int, Hostile], None]) -> Callable[[Hostile], None]:
    """An atlas with a patch index, which a small one has not."""

    def change(hostile: Hostile) -> None:
        with hostile.manifest() as content:
            patches = content["segments"][0]["patches"]
            embedding = content["embedding"]
            path = layout.index(embedding["layer"], content["segments"][0]["name"])
            rows, width = patches["vectors"]["rows"], embedding["width"]
            digest = {"path": path, "rows": rows, "size_bytes": 1, "sha256": "0" * 64}
            patches |= {"exact": False, "factory": "IVF4,SQ8", "probes": 4, "short_list": 40, "index": digest}
        write(hostile.atlas / path, width, rows, hostile)
        hostile.sealed("segments", 0, "patches", "index")

    return change


def _elsewhere(path: Path, width: int, rows: int, hostile: Hostile) -> None:
    index = faiss.index_factory(width, "IVF4,SQ8", faiss.METRIC_L2)
    vectors = np.random.default_rng(0).random((rows, width), np.float32)
    index.train(vectors)
    lists = faiss.OnDiskInvertedLists(4, index.code_size, str(hostile.outside / "lists"))
    index.replace_invlists(lists)
    index.add(vectors)
    faiss.write_index(index, str(path))
    (hostile.outside / "lists").unlink()
    os.mkfifo(hostile.outside / "lists")


def _of_no_kind(path: Path, width: int, rows: int, hostile: Hostile) -> None:
    path.write_bytes(struct.pack("<4siq", b"IHNf", width, rows) + b"\xff" * 4096)


def _of_others(path: Path, width: int, rows: int, hostile: Hostile) -> None:
    path.write_bytes(struct.pack("<4siq", b"IwSq", width, 2**60) + b"\xff" * 4096)


def _torn_index(path: Path, width: int, rows: int, hostile: Hostile) -> None:
    path.write_bytes(struct.pack("<4siq", b"IwSq", width, rows))


def _database(statement: str) -> Callable[[Hostile], None]:
    def change(hostile: Hostile) -> None:
        with duckdb.connect(str(hostile.part(*DATABASE))) as connection:
            for one in statement.format(outside=hostile.outside).split(";"):
                connection.execute(one)
        hostile.sealed(*DATABASE)

    return change


def _other_labels(hostile: Hostile) -> None:
    """The numbers of labels lead beyond the names."""
    table = hostile.rows(*IMAGES)
    labels = table["labels"].chunk(0)
    far = pa.array(labels.values.indices.to_numpy() + 10**6, pa.int32())
    coded = pa.DictionaryArray.from_arrays(far, labels.values.dictionary, safe=False)
    hostile.write(with_column(table, "labels", pa.LargeListArray.from_arrays(labels.offsets, coded)), *IMAGES)


def _far_paths(hostile: Hostile) -> None:
    table = hostile.rows(*FILES)
    hostile.write(with_column(table, "row", pa.array([10**6 - 7] * len(table), pa.int32())), *FILES)


def _far_groups(hostile: Hostile) -> None:
    path = hostile.part("groups")
    table = pa.table([[0], [10**6], ["f" * 64]], schema=tables.GROUPS)
    pq.write_table(table, path)
    hostile.sealed("groups", rows=1)


def _other_database(path: Path, hostile: Hostile) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE files (image INTEGER, path TEXT)")
    connection.close()


def _visual(make: Callable[[Path, Hostile], object]) -> Callable[[Hostile], None]:
    """A stored picture of the unit that is asked about, whose document is what `make` puts there."""

    def change(hostile: Hostile) -> None:
        folder = hostile.atlas / layout.visuals(LAYER, 3)
        folder.mkdir(parents=True)
        make(folder / f"{'0' * 32}.json", hostile)

    return change


def _derived(make: Callable[[Path, Hostile], object], name: Callable[[str], str]) -> Callable[[Hostile], None]:
    """A file that no manifest names, at the path that `name` gives for the version, is what `make` puts there."""

    def change(hostile: Hostile) -> None:
        version = json.loads((hostile.atlas / layout.MANIFEST).read_text())["version"]
        path = hostile.atlas / name(version)
        path.parent.mkdir(exist_ok=True)
        make(path, hostile)

    return change


def _comparison(version: str) -> str:
    return layout.comparison(version, "another")


def _coactivation(version: str) -> str:
    return layout.coactivation(version, LAYER, version, LAYER)


def _earlier_version(hostile: Hostile) -> None:
    """An earlier version whose parts lie outside: what deletes it must not delete these."""
    content = json.loads((hostile.atlas / layout.MANIFEST).read_text())
    content.pop("digest", None)
    content["version"] = "0" * 16
    content["segments"][0]["tables"]["images"]["path"] = "../../outside/secret"
    (hostile.atlas / "versions").mkdir(exist_ok=True)
    (hostile.atlas / "versions" / f"{'0' * 16}.json").write_text(json.dumps(content))


def _pipe(path: Path, hostile: Hostile) -> None:
    os.mkfifo(path)


def _link(target: str) -> Callable[[Path, Hostile], None]:
    return lambda path, hostile: path.symlink_to(target.format(outside=hostile.outside))


def _folder(path: Path, hostile: Hostile) -> None:
    path.mkdir()


MARKUP = '<script>alert("x")</script>"onerror=alert(1) {path} \x1b[31m\x1b]0;title\x07\u202e\r\nnext'
UNITS, DATABASE = ("layers", 0, "units"), ("first_ranks",)
TABLES = ("segments", 0, "tables")
IMAGES, FILES = (*TABLES, "lookup"), (*TABLES, "files")

HOSTILE: dict[str, Callable[[Hostile], None]] = {
    "a version that leads out": _set("version", to="../../outside/X"),
    "a layer that leads out": _set("layers", 0, "spec", "name", to="../../../outside/X"),
    "a part by a whole path": _set("skipped", "path", to="/etc/passwd"),
    "a part that leads out": _set(*TABLES, "images", "path", to="../outside/secret"),
    "more units than there can be": _set("layers", 0, "units", "rows", to=10**15),
    "more images than there are": _set(*TABLES, "images", "rows", to=10**15),
    "a part that is a link out": _part_is(_link("{outside}/secret"), *UNITS),
    "a part that is a link to a device": _part_is(_link("/dev/zero"), *UNITS),
    "a part that is a pipe": _part_is(_pipe, *UNITS),
    "a part that is a folder": _part_is(_folder, *UNITS),
    "images that are a pipe": _part_is(_pipe, *IMAGES),
    "a database that is a pipe": _part_is(_pipe, *DATABASE),
    "a manifest that is a pipe": lambda hostile: _manifest_is(_pipe, hostile),
    "a manifest that is a link out": lambda hostile: _manifest_is(_link("{outside}/secret"), hostile),
    "statistics of another type": _units(
        lambda table: table.set_column(2, "image_count", table["image_count"].cast(pa.string()))
    ),
    "statistics of fewer units": _units(lambda table: table.slice(0, 2)),
    "statistics that are no table": _written(b"PAR1" + b"\xff" * 400 + b"PAR1", "layers", 1, "units"),
    "images that are no table": _written(b"ARROW1\0\0" + b"\xff" * 400, *IMAGES),
    "images of other labels than there are": _other_labels,
    "paths of images that are not there": _far_paths,
    "paths that are no table": _written(b"ARROW1\0\0" + b"\xff" * 400, *FILES),
    "near duplicates that are not there": _far_groups,
    "a database that is none": _written(b"\xff" * 20_000, *DATABASE),
    "a database of another kind": _part_is(_other_database, *DATABASE),
    "a view that reads a file": _database(
        "ALTER TABLE first_ranks RENAME TO others; CREATE VIEW first_ranks AS "
        "SELECT * EXCLUDE (layer), length(content) AS layer FROM others, read_text('{outside}/secret')"
    ),
    "vectors that run code": _pickled_vectors,
    "vectors of another shape": _few_vectors,
    "vectors that are a pipe": _part_is(_pipe, "segments", 0, "patches", "vectors"),
    "an index whose lists are a pipe": _index(_elsewhere),
    "an index of another kind": _index(_of_no_kind),
    "an index of other vectors": _index(_of_others),
    "an index that is cut off": _index(_torn_index),
    "the root of all files": _root("/"),
    "a root outside": _root("{outside}/corpus"),
    "a root of a bucket": _root("s3://stranger/pictures"),
    "a root that says whom to ask": _root("s3://stranger/a?endpoint_override=127.0.0.1:9&scheme=http"),
    "a picture by a whole path": _picture("file:{outside}/corpus/{path}"),
    "a picture that leads out": _picture("file:../../outside/corpus/{path}"),
    "a picture in a bucket": _picture("file:s3://stranger/{path}"),
    "a picture behind a link": _picture_at(_link("{outside}/corpus/blobs/001.jpg")),
    "a picture behind a linked folder": _linked_folder,
    "a picture that is a pipe": _picture_at(_pipe),
    "a picture that is a pipe outside": _picture("file:{outside}/pipe"),
    "a picture that is a device": _picture("file:/dev/zero"),
    "a picture that is a link to a device": _picture_at(_link("/dev/zero")),
    "a picture that is a folder": _picture_at(_folder),
    "a picture of more bytes than there are": _picture("range:0+999999999999999:{path}"),
    "a picture at no place": _picture("range:-5+10:{path}"),
    "a picture in no row": _picture("cell:0/999999999:{path}"),
    "an address that is none": _picture("nothing"),
    "names that are markup": lambda hostile: hostile.names(lambda path: MARKUP.format(path=path)),
    "a made picture that is a pipe": _visual(_pipe),
    "a made picture that is a link out": _visual(_link("{outside}/secret")),
    "a made picture that is none": _visual(lambda path, hostile: path.write_text('{"key": "../../x"}')),
    "a comparison that is a pipe": _derived(_pipe, _comparison),
    "a comparison that is a link out": _derived(_link("{outside}/secret"), _comparison),
    "a comparison that is a folder": _derived(_folder, _comparison),
    "a comparison that is none": _derived(lambda path, hostile: path.write_text('{"a": "../../x"}'), _comparison),
    "co-activation that is a pipe": _derived(_pipe, _coactivation),
    "co-activation that is a link out": _derived(_link("{outside}/secret"), _coactivation),
    "co-activation that is no table": _derived(lambda path, hostile: path.write_bytes(b"PAR1" * 200), _coactivation),
    "an earlier version that leads out": _earlier_version,
    "weights that are a pipe": _set("model", "weights", to="{outside}/pipe"),
    "weights that are a secret": _set("model", "weights", to="{outside}/secret"),
    "code that nobody trusts": _set("model", "spec", to="file:{outside}/secret:build"),
}


def _manifest_is(make: Callable[[Path, Hostile], object], hostile: Hostile) -> None:
    path = hostile.atlas / layout.MANIFEST
    path.unlink()
    make(path, hostile)
