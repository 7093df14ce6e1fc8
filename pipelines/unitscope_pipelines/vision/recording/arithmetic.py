"""Arithmetics of a forward: exact float32, or one that GPUs are faster at and that rounds more."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unitscope_schemas.entries.model import Precision

_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_ALONE = threading.Lock()
"""Held while a GPU computes: whether in TF32 is a setting of the whole process."""


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run forwards in this precision within the context.

    Products of matrices and convolutions have half precision in bf16 and fp16, and whatever needs more has float32, as
    PyTorch's autocast knows it. In tf32 a GPU rounds their factors to 10 bits; a CPU knows no such thing and is exact.
    """
    half = _HALVES.get(precision)
    with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None, cache_enabled=False):
        if device.type == "cuda":
            with _ALONE:
                torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
                yield
        else:
            yield
