"""Memory: an allocator that keeps what is freed for reuse, and how a shortage is told."""

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Numbers of the options of glibc's mallopt."""
_TOP_PAD_BYTES = 64 << 20
"""Bytes by which the heap grows at once."""


def keep_freed_memory() -> None:
    """Make this process keep what it frees, where it uses glibc.

    With glibc's defaults every large array is mapped and page-faulted anew: forwards take three times as long, and
    ranking half as long again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)


def is_short_memory(error: Exception) -> bool:
    """Return whether an error is that of too little memory; torch has no class of its own for that of a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
