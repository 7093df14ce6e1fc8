"""Interval arithmetic on a network's real computation: which input rows and columns every value depends on."""

import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, UntypedStorage
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from unitscope_pipelines.vision.receptive_fields.dependency import (
    CLIPPED,
    PLANES,
    Dependency,
    nothing,
    own_pixels,
    spread,
    thinned,
    union,
    whole,
)
from unitscope_pipelines.vision.receptive_fields.interval_rules import EVERYTHING, everything, rule_for
from unitscope_pipelines.vision.receptive_fields.operation import Operation, Rule, tensors_in

log = logging.getLogger(__name__)

_Key = TypeVar("_Key", Tensor, UntypedStorage)
_Value = TypeVar("_Value")


class Intervals(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this mode, every operation on the image also computes the dependency of its outputs."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.grids: list[tuple[int, int]] = []
        """Rows and columns of the convolutions so far, in the order of the forward."""
        self._dependencies: MutableMapping[Tensor, tuple[Dependency, int | None]] = by_identity()
        self._memories: MutableMapping[UntypedStorage, Dependency] = by_identity()
        self._writes: MutableMapping[UntypedStorage, int] = by_identity()
        self._written: MutableMapping[UntypedStorage, Dependency] = by_identity()
        self._leaked: list[Dependency] = []
        self._unknown: set[OpOverload] = set()
        self._keep(image, own_pixels(image.shape), self._version(image))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Skip the compiler: nothing is compiled here, and shielding a mode from it would import it: some seconds."""
        return False

    def dependency_of(self, tensor: Tensor) -> Dependency | None:
        """Return a tensor's dependency, None for a constant.

        Of memory that was fresh when it was written to, as where pictures are put into a batch, each element is
        known. A tensor whose memory was else written through another view may hold whatever was put there.
        """
        if (written := self._written.get(tensor.untyped_storage())) is not None:
            return thinned(seen_as(written, tensor)).clone()
        dependency, version = self._dependencies.get(tensor, (None, None))
        if dependency is not None and version is not None and version == self._version(tensor):
            return dependency
        memory = self._memories.get(tensor.untyped_storage())
        return None if memory is None else spread(memory, tensor.shape)

    def _version(self, tensor: Tensor) -> int:
        """Return how often a tensor's memory was written; torch's own count is missing in inference mode."""
        return self._writes.get(tensor.untyped_storage(), 0)

    def _keep(self, tensor: Tensor, dependency: Dependency, version: int | None) -> None:
        """Remember a tensor's dependency, and that its memory holds such values too."""
        memory, hull_of_all = tensor.untyped_storage(), whole(dependency)
        self._dependencies[tensor] = (dependency, version)
        self._memories[memory] = union([self._memories.get(memory, hull_of_all), hull_of_all], [])

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func._can_decompose():
            with self:  # what autograd takes apart elsewhere arrives whole in inference mode
                return func.decompose(*args, **kwargs)
        inputs = tensors_in((args, kwargs))
        dependencies = {id(tensor): known for tensor in inputs if (known := self.dependency_of(tensor)) is not None}
        outcome: object = func(*args, **kwargs)
        outputs = tensors_in(outcome)
        arguments = dict(_named(func, args, kwargs))
        for tensor in tensors_in(_written(func, arguments)):
            self._writes[tensor.untyped_storage()] = self._version(tensor) + 1
        if outputs and func._schema.name == "aten::convolution" and outputs[0].dim() == 4:
            self.grids.append((outputs[0].shape[2], outputs[0].shape[3]))
        if not outputs:
            # the value has left the graph (Tensor.item): whatever follows may depend on it
            self._leaked += map(whole, dependencies.values())
        elif dependencies or self._leaked:
            self._note(Operation(func, arguments, outputs[0]), dependencies, outputs)
        return outcome

    def _rule(self, function: OpOverload) -> Rule:
        """Return the rule of an operation; one that has none is warned of once."""
        rule = rule_for(function)
        if rule is None and function not in self._unknown:
            self._unknown.add(function)
            log.warning("no receptive-field rule for %s: every output counts as seeing all inputs", function)
        return rule or EVERYTHING

    def _is_fresh(self, memory: UntypedStorage) -> bool:
        """Return whether nothing that depends on the input was put there before."""
        return memory not in self._memories or bool(self._memories[memory][CLIPPED].isneginf().all())

    def _write(self, operation: Operation, output: Tensor, result: Dependency) -> bool:
        """Note element by element what an operation writes into fresh memory; return whether it is such memory."""
        memory = output.untyped_storage()
        if memory not in self._written and self._is_fresh(memory) and _is_target(operation, output):
            self._written[memory] = nothing([memory.nbytes() // output.element_size()]).clone()
        if memory not in self._written:
            return False
        if any(tensor is output for tensor in tensors_in(_written(operation.function, operation.arguments))):
            seen_as(self._written[memory], output).copy_(result)
        return True

    def _apply(self, operation: Operation, dependencies: Mapping[int, Dependency]) -> tuple[list[Dependency], set[int]]:
        """Return the dependencies of an operation's outputs, and the ids of the tensors that its rule read.

        `dependencies` are those of the arguments, by the tensors' ids; tensors that are not there are constants.
        """
        if not dependencies:
            return [nothing(operation.shape)], set()
        if not operation.output.numel():
            return [everything(operation, *dependencies.values())], set(dependencies)
        rule = self._rule(operation.function)
        tensors = rule.tensors(operation)
        read = [dependencies[id(one)] if id(one) in dependencies else nothing(one.shape) for one in tensors]
        outcome = rule.apply(operation, *read)
        return [outcome] if isinstance(outcome, Tensor) else list(outcome), set(map(id, tensors))

    def _note(self, operation: Operation, dependencies: Mapping[int, Dependency], outputs: list[Tensor]) -> None:
        """Remember the dependencies of an operation's outputs; what its rule did not read counts as a whole."""
        results, read = self._apply(operation, dependencies)
        rest = [whole(dependency) for key, dependency in dependencies.items() if key not in read] + self._leaked
        hull_of_all = union(map(whole, results), [])
        for index, output in enumerate(outputs):
            result = results[min(index, len(results) - 1)]
            result = result if result.shape[1:] == output.shape else spread(hull_of_all, output.shape)
            result = union([result, *rest], output.shape) if rest else result
            if not self._write(operation, output, result):
                self._keep(output, result, self._version(output))


def by_identity() -> MutableMapping[_Key, _Value]:
    """Return a mapping from live tensors or storages; entries go when their keys do."""
    mapping: MutableMapping[_Key, _Value] = WeakIdKeyDictionary()
    return mapping


def seen_as(written: Dependency, tensor: Tensor) -> Dependency:
    """Return the dependencies of a tensor's memory in the tensor's shape and order."""
    return written.as_strided((PLANES, *tensor.shape), (written.shape[1], *tensor.stride()), tensor.storage_offset())


def _is_target(operation: Operation, output: Tensor) -> bool:
    """Return whether an operation put its output into memory that it was given, as padding in a circle does."""
    return next(iter(operation.arguments.values())) is output


def _written(function: OpOverload, arguments: Mapping[str, object]) -> list[object]:
    """Return the arguments that an operation writes to."""
    infos = {argument.name: argument.alias_info for argument in function._schema.arguments}
    return [value for name, value in arguments.items() if (info := infos[name]) and info.is_write]


def _named(function: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the names of an operation's arguments and their values, defaults included."""
    for position, argument in enumerate(function._schema.arguments):
        if position < len(args):
            yield argument.name, args[position]
        elif argument.name in kwargs:
            yield argument.name, kwargs[argument.name]
        elif argument.has_default_value():
            yield argument.name, argument.default_value
