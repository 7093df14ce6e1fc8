"""The arithmetic of a run: the kind of device, and how many pictures its forwards take at once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from unitscope_pipelines.cluster.resources import has_gpus, resources
from unitscope_pipelines.cluster.session import connected
from unitscope_pipelines.cluster.workers import each
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.vision.models.models import VisionModel, reload_model
from unitscope_pipelines.vision.recording.batch_size import SIZES, best_size, forward_rates
from unitscope_pipelines.vision.recording.device import check_device, settle_process
from unitscope_schemas.entries.model import Device, ModelEntry, Precision, Preprocessing
from unitscope_schemas.errors import UsageError
from unitscope_schemas.manifest import Manifest

_BATCH_SIZE = 32
"""Count of pictures in a forward on a CPU, where more are no faster."""


def device_kind(config: IndexConfig, previous: Manifest | None) -> Device:
    """Return the kind of device that forwards run on: the one that is asked for, else that of the atlas, else a GPU if
    there is one. Raises UsageError for a device that unitscope does not run on, or that does not know the precision.
    """
    check_device(config.device)
    if config.device != "auto":
        device: Device = "cuda" if config.device == "cuda" else "cpu"
    elif previous is not None:
        device = previous.device
    else:
        device = "cuda" if (has_gpus(config.address) if config.address else torch.cuda.is_available()) else "cpu"
    if config.precision == "tf32" and device == "cpu":
        raise UsageError("tf32 is an arithmetic of GPUs, and there is none here; use --precision fp32")
    return device


def batch_size(
    config: IndexConfig, previous: Manifest | None, model: VisionModel, device: Device, is_begun: Callable[[int], bool]
) -> int:
    """Return the count of pictures in a forward.

    It is the one that is asked for, else that of the atlas, else 32; on a GPU the one with which an earlier run of the
    same has begun, else the one that a worker measures to be as fast as any.
    """
    if config.batch_size is not None:
        return config.batch_size
    if previous is not None:
        return previous.batch_size
    if device == "cpu":
        return _BATCH_SIZE
    return next(filter(is_begun, SIZES), None) or _measured_size(config, model)


@dataclass(frozen=True)
class _ForwardTimer:
    """What a worker does to time forwards."""

    model: ModelEntry
    preprocessing: Preprocessing
    precision: Precision
    trust_code: bool

    def __call__(self) -> Callable[[str], dict[int, float]]:
        settle_process()
        module = reload_model(self.model, self.trust_code).module

        def rates(device: str) -> dict[int, float]:
            at = torch.device(device)
            return forward_rates(module.to(at), self.preprocessing, self.precision, at, SIZES)

        return rates


def _measured_size(config: IndexConfig, model: VisionModel) -> int:
    """Return the batch size that forwards on one of the cluster's GPUs are fastest with."""
    timer = _ForwardTimer(model.entry, model.preprocessing, config.precision, config.trust_code)
    with connected(config.address):
        (done,) = each(timer, ["cuda"], resources(1, "cuda"))
    return best_size(done.result)
