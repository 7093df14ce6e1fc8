"""Weights of a network: its own, random ones from a seed, or those of a file; and their digest."""

import hashlib
import json
import warnings
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PosixPath
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor, nn

from unitscope_pipelines.vision.models.checkpoints import fill
from unitscope_pipelines.vision.recording.owners_code import in_one_line
from unitscope_schemas.errors import ModelError, UsageError, listing

_DEFAULT, _RANDOM = "default", "random"
"""Words for published weights and for weights drawn from a seed."""


def weighted(build: Callable[[], nn.Module], pretrained: Callable[[], nn.Module], weights: str) -> nn.Module:
    """Return the network of `pretrained` for `default`, else that of `build`, drawn from a seed; a file fills it later.

    Raises UsageError for weights that are not there.
    """
    with seeded(weights):
        return pretrained() if weights == _DEFAULT else build()


def fill_from_file(module: nn.Module, weights: str) -> tuple[str, ...]:
    """Fill a network with the weights of `FILE` or `FILE#KEY`, and return in words how they were read.

    Other weights change nothing. Raises UsageError for a file that is not there, ModelError for one that does not fit.
    """
    if not _is_file(weights):
        return ()
    path, key = _path_and_key(weights)
    return fill(module, read_state(path), str(path), key)


@contextmanager
def seeded(weights: str) -> Iterator[None]:
    """Let torch draw from the seed of `random:SEED` within the context; restore its generator.

    Raises UsageError for `random` without a seed; other weights change nothing.
    """
    scheme, _, seed = weights.partition(":")
    with torch.random.fork_rng(devices=[]):
        if scheme == _RANDOM:
            if not seed.isdecimal():
                raise UsageError(f"weights {weights!r} need a seed, for example random:0")
            torch.manual_seed(int(seed))
        yield


def located(weights: str) -> str:
    """Return the name of weights in a form that holds in every working directory."""
    if not _is_file(weights):
        return weights
    path, key = _path_and_key(weights)
    return f"{path.absolute()}#{key}" if key else str(path.absolute())


def read_state(path: Path) -> Mapping[str, object]:
    """Read what `.safetensors`, or any file that torch reads without running code, holds by name.

    Raises UsageError for a file that is not there and ModelError for one that holds no dict, or more than plain data.
    """
    if not path.is_file():
        raise UsageError(f"weights file {str(path)!r} does not exist; use default, random:SEED or a file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(_plain_data()), warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"weights file {str(path)!r} holds no plain state dict: {_reason(path, error)}") from error
    if not isinstance(state, dict):
        raise ModelError(f"weights file {str(path)!r} holds {type(state).__name__}, not a state dict")
    return {str(name): value for name, value in state.items()}


def _plain_data() -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """Return the kinds of plain data that training scripts store beside weights, which run no code when read."""
    scalar, rebuilt = np._core.multiarray.scalar, np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    kinds = [type(np.dtype(name)) for name in ("bool", "int32", "int64", "uint8", "float16", "float32", "float64")]
    renamed = [(scalar, "numpy.core.multiarray.scalar"), (rebuilt, "numpy.core.multiarray._reconstruct")]
    return [Namespace, defaultdict, list, dict, set, PosixPath, scalar, rebuilt, np.ndarray, np.dtype, *kinds, *renamed]


def _reason(path: Path, error: Exception) -> str:
    """Return in one line why a weights file cannot be read, and what would do."""
    if "TorchScript" in str(error):
        return "it is TorchScript; save the state_dict() of what torch.jit.load gives"
    try:
        with torch.serialization.safe_globals(_plain_data()):
            others = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, OSError, UnpicklingError, EOFError):
        others = []
    if others:
        return f"reading it would run the code of {listing(others)}; save model.state_dict() alone"
    return in_one_line(error, 200)


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 over names, shapes, types and bytes of all parameters and buffers.

    Raises ModelError for a state of another kind, unless it is plain data.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, Tensor):
            digest.update(f"{name} {_as_text(name, tensor)}".encode())
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _as_text(name: str, value: object) -> str:
    """Return plain data as text that stands for its values; raise ModelError for anything else."""
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        raise ModelError(
            f"the network's state {name!r} is {type(value).__name__}, which has no digest; store tensors or plain data"
        ) from None


def _path_and_key(weights: str) -> tuple[Path, str]:
    """Return the file of weights and the name of the dict in it, empty unless `FILE#KEY` names one."""
    path, _, key = weights.rpartition("#")
    return (Path(path), key) if path and not Path(weights).exists() else (Path(weights), "")


def _is_file(weights: str) -> bool:
    """Return whether weights are named by a file."""
    return weights != _DEFAULT and weights.partition(":")[0] != _RANDOM
