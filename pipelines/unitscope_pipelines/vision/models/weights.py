"""Weights of a network: its own, random ones from a seed, or those of a file; and their digest."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from unitscope_schemas.errors import ModelError, UsageError

_DEFAULT, _RANDOM = "default", "random"
"""Words for published weights and for weights drawn from a seed."""


def weighted(build: Callable[[], nn.Module], pretrained: Callable[[], nn.Module], weights: str) -> nn.Module:
    """Return the network of `pretrained` for `default`, else that of `build`, drawn from a seed or filled from a file.

    Raises UsageError for weights that are not there and ModelError for those that do not fit.
    """
    with seeded(weights):
        module = pretrained() if weights == _DEFAULT else build()
    if _is_file(weights):
        try:
            module.load_state_dict(read_state(Path(weights)))
        except RuntimeError as error:
            raise ModelError(f"weights {weights!r} do not fit the model: {str(error)[:400]}") from None
    return module


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
    return str(Path(weights).absolute()) if _is_file(weights) else weights


def read_state(path: Path) -> Mapping[str, object]:
    """Read a state dict from `.safetensors`, or from any file that torch reads without running code.

    Raises UsageError for a file that is not there and ModelError for one that holds no state dict.
    """
    if not path.is_file():
        raise UsageError(f"weights file {str(path)!r} does not exist; use default, random:SEED or a file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"weights file {str(path)!r} holds no plain state dict: {str(error)[:200]}") from error
    if not isinstance(state, dict):
        raise ModelError(f"weights file {str(path)!r} holds {type(state).__name__}, not a state dict")
    return state


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 over names, shapes, types and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _is_file(weights: str) -> bool:
    """Return whether weights are named by a file."""
    return weights != _DEFAULT and weights.partition(":")[0] != _RANDOM
