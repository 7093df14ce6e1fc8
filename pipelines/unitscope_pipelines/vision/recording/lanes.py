"""How batches come to a device and what is computed of them comes back.

On a GPU two batches are under way at a time: the pictures of one are copied on a stream of their own while the network
runs on the one before, whose outputs are packed into one block of bytes and copied back on a third stream. The process
waits for the GPU once a batch.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

Compute = Callable[[Tensor], list[Tensor]]
"""Return tensors by image of a batch (image, channel, row, col)."""
Wait = Callable[[], list[Tensor]]
"""Return what a batch gives in memory of this process, once it is there."""
ByImage = Shaped[Tensor, "image ..."]


class HostLane:
    """The lane of this process's own memory: everything is done at once."""

    depth, pins = 1, False
    """Count of batches that are under way at a time, and whether they are to lie in pinned memory."""

    def begin(self, lines: Tensor, compute: Compute) -> Wait:
        """Compute something of a batch (image, row, col, channel)."""
        outputs = compute(lines.permute(0, 3, 1, 2))
        return lambda: outputs

    def release(self) -> None:
        """Do nothing: memory is the machine's."""


class CudaLane:
    """The lane of a GPU, with a stream for each direction beside the one that computes."""

    depth, pins = 2, True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._to, self._back = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]

    def begin(self, lines: Tensor, compute: Compute) -> Wait:
        """Compute something of a batch (image, row, col, channel) in pinned memory, after the one before."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._to):
            batch = lines.to(self._device, non_blocking=True)
        computing.wait_stream(self._to)
        batch.record_stream(computing)
        outputs = compute(batch.permute(0, 3, 1, 2))
        packed = pack(outputs)
        self._back.wait_stream(computing)
        with torch.cuda.stream(self._back):
            host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
            host.copy_(packed, non_blocking=True)
            packed.record_stream(self._back)
            fetched = torch.cuda.Event()  # type: ignore[no-untyped-call]
            fetched.record(self._back)
        kinds = [(output.dtype, output.shape[1:]) for output in outputs]

        def wait() -> list[Tensor]:
            fetched.synchronize()
            return unpack(host, kinds)

        return wait

    def release(self) -> None:
        """Give back memory of the device that is held for reuse."""
        torch.cuda.empty_cache()


def pack(outputs: Sequence[ByImage]) -> UInt8[Tensor, "image byte"]:
    """Return tensors by image as one block of bytes, which is one copy."""
    return torch.cat([_bytes(output) for output in outputs], 1)


def unpack(packed: UInt8[Tensor, "image byte"], kinds: Sequence[tuple[torch.dtype, torch.Size]]) -> list[ByImage]:
    """Return the tensors of a block of bytes, whose types and shapes without the image are known."""
    sizes = [shape.numel() * dtype.itemsize for dtype, shape in kinds]
    pieces = torch.split(packed, sizes, 1)
    return [
        piece.contiguous().view(dtype).reshape(len(packed), *shape)
        for piece, (dtype, shape) in zip(pieces, kinds, strict=True)
    ]


def _bytes(output: ByImage) -> UInt8[Tensor, "image byte"]:
    return output.reshape(len(output), -1).contiguous().view(torch.uint8)
