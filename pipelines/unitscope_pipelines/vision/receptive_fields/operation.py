"""Operations that have run on tensors, and rules that say how their outputs depend on the input."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves

from unitscope_pipelines.vision.receptive_fields.dependency import Dependency


@dataclass(frozen=True)
class Operation:
    """An operation that has run, with its arguments by the schema's names and its first output."""

    function: OpOverload
    """Operator that ran, one overload of it."""
    arguments: Mapping[str, object]
    """Values of the arguments by name, defaults included, in the schema's order."""
    output: Tensor
    """First tensor that the operator returned."""

    @property
    def name(self) -> str:
        """Return the operator's name without namespace and overload, for example `add_`."""
        return self.function._schema.name.removeprefix("aten::")

    @property
    def shape(self) -> list[int]:
        """Return the shape of the first output."""
        return list(self.output.shape)

    @property
    def tensors(self) -> list[Tensor]:
        """Return all tensors among the arguments, those in lists included."""
        return tensors_in(self.arguments)

    def tensor(self, name: str) -> Tensor:
        """Return the argument of this name, which is a tensor."""
        value = self.arguments[name]
        assert isinstance(value, Tensor)
        return value

    def integer(self, name: str) -> int:
        """Return the argument of this name, which is a whole number."""
        value = self.arguments[name]
        assert isinstance(value, int)
        return value

    def integers(self, name: str, rank: int = 1) -> list[int]:
        """Return one whole number for each of `rank` axes: a single one stands for all, an empty list stays empty."""
        value = self.arguments[name]
        values: list[int] = list(value) if isinstance(value, list | tuple) else [self.integer(name)]
        return values * rank if len(values) == 1 else values

    def flag(self, name: str) -> bool:
        """Return the argument of this name as yes or no; an argument that the schema does not have is no."""
        return bool(self.arguments.get(name, False))


@dataclass(frozen=True)
class Rule:
    """A rule says how an operation's outputs depend on the arguments that it reads.

    What it does not read counts as a whole: every output then depends on all that those arguments depend on.
    """

    reads: tuple[str | int, ...] | None
    """Names or positions of the arguments that the rule reads; None for every argument."""
    apply: Callable[..., Dependency | Sequence[Dependency]]
    """Function of the operation and the dependency of each tensor read, in the order of `reads`; returns the
    dependency of the first output, or those of several outputs."""
    but: tuple[str, ...] = ()
    """Names of arguments that are not read although `reads` is None."""

    def tensors(self, operation: Operation) -> list[Tensor]:
        """Return the tensors that the rule reads; arguments that the operation does not have are left out."""
        if self.reads is None:
            return tensors_in([value for name, value in operation.arguments.items() if name not in self.but])
        values = list(operation.arguments.values())
        return tensors_in([values[key] if isinstance(key, int) else operation.arguments.get(key) for key in self.reads])


def tensors_in(values: object) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and mappings, in their order."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
