"""Devices, threads and rounding: where and how a forward runs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from unitscope_pipelines.vision.recording.memory import keep_freed_memory
from unitscope_schemas.entries.model import Device
from unitscope_schemas.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str) -> torch.device:
    """Return the device of this name; `auto` is the first CUDA device that this process sees, else the CPU.

    Raises UsageError for a device that is not there, or that unitscope does not run on.
    """
    check_device(name)
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name!r} is not available here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_of_kind(kind: Device) -> torch.device:
    """Return the device on which values of this kind of device are computed again, the CPU where it is not there."""
    return torch.device(kind if torch.cuda.is_available() else "cpu")


def check_device(name: str) -> None:
    """Raise UsageError for a device that unitscope does not run on."""
    if name not in DEVICES:
        raise UsageError(
            f"device {name!r} is not one of {', '.join(DEVICES)}; workers hold the GPU that Ray gives them, and other "
            "commands take the first that CUDA_VISIBLE_DEVICES lets them see"
        )


def settle_process() -> None:
    """Prepare a worker process: one thread for kernels, the same rounding each time, freed memory kept for reuse.

    One thread makes the recorded values independent of how many workers share the cores.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters; the CPU if it has none."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run kernels on one thread within the context: with more, sums are rounded otherwise, and pixels with them."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
