"""Interval arithmetic on a network's real computation: which input rows and columns every value depends on."""

import logging
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from unitscope_pipelines.vision.receptive_fields.dependency import (
    PLANES,
    Reach,
    hull,
    nothing,
    picture,
    spread,
    union,
)
from unitscope_pipelines.vision.receptive_fields.interval_rules import everything, rule_for
from unitscope_pipelines.vision.receptive_fields.operation import Call, Rule, is_tensor

log = logging.getLogger(__name__)


class Intervals(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this mode, every operation on the image also computes the reach of its outputs."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.grids: list[tuple[int, int]] = []
        self._reaches: MutableMapping[Tensor, tuple[Reach, int | None]] = by_identity()
        self._held: MutableMapping[UntypedStorage, Reach] = by_identity()
        self._leaked: list[Reach] = []
        self._unknown: set[Any] = set()
        self._keep(image, picture(image.shape), image._version)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and shielding a mode from the compiler would import it: several seconds."""
        return False

    def reach_of(self, tensor: Tensor) -> Reach | None:
        """A tensor's reach, None for a constant.

        A tensor whose memory was written through another view may hold whatever was put there.
        """
        reach, version = self._reaches.get(tensor, (None, None))
        if reach is not None and version is not None and version == _version(tensor):
            return reach
        held = self._held.get(tensor.untyped_storage())
        return None if held is None else spread(held, tensor.shape)

    def _keep(self, tensor: Tensor, reach: Reach, version: int | None) -> None:
        memory, whole = tensor.untyped_storage(), hull(reach).reshape(PLANES)
        self._reaches[tensor] = (reach, version)
        self._held[memory] = union([self._held.get(memory, whole), whole], [])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if is_tensor(leaf)]
        reaches = {id(tensor): reach for tensor in inputs if (reach := self.reach_of(tensor)) is not None}
        outcome = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(outcome) if is_tensor(leaf)]
        if outputs and func._schema.name == "aten::convolution" and outputs[0].dim() == 4:
            self.grids.append((outputs[0].shape[2], outputs[0].shape[3]))
        if not outputs:
            # the value has left the graph (Tensor.item): whatever follows may depend on it
            self._leaked += [hull(reach).reshape(PLANES) for reach in reaches.values()]
        elif reaches or self._leaked:
            call = Call(func, dict(_named(func, args, kwargs)), outputs[0], dict(reaches))
            self._note(call, outputs)
        return outcome

    def _rule(self, function: Any) -> Rule | None:
        return rule_for(function)

    def _found(self, call: Call) -> list[Reach]:
        if not call.unread:
            return [nothing(call.shape)]
        rule = self._rule(call.function)
        if rule is None and call.function not in self._unknown:
            self._unknown.add(call.function)
            log.warning("no receptive-field rule for %s: every output counts as seeing all inputs", call.function)
        found = (rule or everything)(call)
        return [found] if isinstance(found, Tensor) else list(found)

    def _note(self, call: Call, outputs: list[Tensor]) -> None:
        found = self._found(call)
        rest = [hull(reach).reshape(PLANES) for reach in call.unread.values()] + self._leaked
        whole = union([hull(reach).reshape(PLANES) for reach in found], [])
        for place, output in enumerate(outputs):
            own = found[min(place, len(found) - 1)]
            own = own if own.shape[1:] == output.shape else spread(whole, output.shape)
            self._keep(output, union([own, *rest], output.shape) if rest else own, _version_after(call, output))


def by_identity() -> Any:
    """A mapping from live tensors or storages; entries go when their keys do."""
    return WeakIdKeyDictionary()


def _version(tensor: Tensor) -> int | None:
    """How often a tensor's memory was written; inference tensors do not count it."""
    return None if tensor.is_inference() else tensor._version


def _version_after(call: Call, output: Tensor) -> int | None:
    """The version that an output has once its operation is over: views share the count, a write adds one."""
    memory = output.untyped_storage()._cdata
    inputs = [leaf for leaf in tree_leaves(call.arguments) if is_tensor(leaf)]
    versions = [_version(tensor) for tensor in [output, *inputs] if tensor.untyped_storage()._cdata == memory]
    counted = [version for version in versions if version is not None]
    written = any(leaf is output for leaf in tree_leaves(_written(call)))
    return max(counted) + written if len(counted) == len(versions) else None


def _written(call: Call) -> list[Any]:
    infos = [(argument.name, argument.alias_info) for argument in call.function._schema.arguments]
    return [call.get(name) for name, info in infos if info is not None and info.is_write]


def _named(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for place, argument in enumerate(function._schema.arguments):
        if place < len(args):
            yield argument.name, args[place]
        elif argument.name in kwargs:
            yield argument.name, kwargs[argument.name]
        elif argument.has_default_value():
            yield argument.name, argument.default_value
