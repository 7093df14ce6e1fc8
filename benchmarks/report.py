"""How benchmarks say what they found: a table on the screen, and a JSON file beside the others."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("torch", "torchvision", "ray", "pyarrow", "duckdb", "faiss-gpu", "numpy", "fastapi")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and graphics card."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in described.splitlines() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(models),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same keys, in columns."""
    names = list(rows[0])
    cells = [names, *([_text(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    print(f"\n{title}")  # noqa: T201
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())  # noqa: T201


def save(name: str, figures: Mapping[str, Any]) -> None:
    """Write results/NAME.json with the machine, the date and the libraries' versions."""
    RESULTS.mkdir(exist_ok=True)
    libraries = {library: version(library) for library in _LIBRARIES if _is_here(library)}
    date = datetime.now(UTC).date().isoformat()
    content = {"date": date, "machine": machine(), "libraries": libraries, **figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _is_here(library: str) -> bool:
    try:
        return bool(version(library))
    except PackageNotFoundError:
        return False


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
