"""Where and how a forward runs: device, threads, rounding."""

import torch

from unitscope_pipelines.vision.recording.memory import keep_freed_memory
from unitscope_schemas.errors import UsageError


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU; raises UsageError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r} is unknown; use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name!r} is not available here; use --device cpu")
    return device


def settle_process() -> None:
    """Prepare a worker process: one thread for kernels, the same rounding each time, freed memory kept for reuse.

    One thread makes the recorded values independent of how many workers share the cores.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
