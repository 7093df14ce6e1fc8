"""An operation that has run on tensors, and how its arguments reach back to the input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unitscope_pipelines.vision.receptive_fields.dependency import Reach, nothing


@dataclass
class Call:
    """An operation that has run: its arguments by the schema's names, its first output, and their reaches."""

    function: Any
    arguments: dict[str, Any]
    output: Tensor
    unread: dict[int, Reach] = field(default_factory=dict)
    _read: dict[int, Reach] = field(default_factory=dict)

    @property
    def shape(self) -> list[int]:
        return list(self.output.shape)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    def reach(self, name: str) -> Reach:
        return self.reach_of(self.arguments[name])

    def reach_of(self, tensor: Tensor) -> Reach:
        if id(tensor) in self.unread:
            self._read[id(tensor)] = self.unread.pop(id(tensor))
        return self._read[id(tensor)] if id(tensor) in self._read else nothing(tensor.shape)


Rule = Callable[[Call], Reach | Sequence[Reach]]


def is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
