"""The pictures of a folder as every other kind of corpus."""

import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Picture = tuple[str, str, bytes]
"""Label, name, bytes."""


def pictures_of(folder: Path) -> list[Picture]:
    """The folder's pictures in order of their paths."""
    return [(path.parent.name, path.name, path.read_bytes()) for path in sorted(folder.rglob("*.jpg"))]


def write_tars(folder: Path, pictures: list[Picture], tar_count: int = 2) -> Path:
    """WebDataset shards with labels in `.cls` and the year in `.json`."""
    folder.mkdir(parents=True)
    per_tar = -(-len(pictures) // tar_count)
    for shard in range(tar_count):
        with tarfile.open(folder / f"shard-{shard:03d}.tar", "w") as tar:
            for number, (label, _, data) in enumerate(pictures[shard * per_tar : (shard + 1) * per_tar]):
                year = 2000 + shard * per_tar + number
                add(tar, f"{number:04d}.jpg", data)
                add(tar, f"{number:04d}.cls", label.encode())
                add(tar, f"{number:04d}.json", json.dumps({"year": year}).encode())
    return folder


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_parquet(folder: Path, pictures: list[Picture]) -> Path:
    """Two files as Hugging Face writes them: image structs, numbered labels with names in the schema."""
    (folder / "data").mkdir(parents=True)
    names = sorted({label for label, _, _ in pictures})
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    rows = [
        {"image": {"bytes": data, "path": name}, "label": names.index(label), "year": 2000 + number}
        for number, (label, name, data) in enumerate(pictures)
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    half = len(rows) // 2
    for number, part in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(part, folder / "data" / f"train-{number:05d}.parquet", row_group_size=7)
    return folder


def write_list(file: Path, folder: Path, absolute: bool = False) -> Path:
    """A CSV of the folder's pictures, relative to the list or absolute."""
    with file.open("w", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(["path", "label", "year"])
        for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
            rows.writerow([path if absolute else path.relative_to(file.parent), path.parent.name, 2000 + number])
    return file
