"""Checkpoints as people have them: a state dict, perhaps in a dict and under a common prefix, fills a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from unitscope_pipelines.vision.recording.owners_code import in_one_line
from unitscope_schemas.errors import ModelError, UsageError, listing

State = Mapping[str, Tensor]
"""Tensors by name."""

_COUNTERS = "num_batches_tracked"
"""End of the names of counters that old checkpoints lack, and that decide nothing."""
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
"""Names that wrappers of a module, or of a part of it, put into the names of its tensors."""
_MOST_NAMES = 4


@dataclass(frozen=True)
class _Reading:
    """One way to read a checkpoint: which dict in it, and which prefix is left out or put in front of every name."""

    key: str
    """Name of the dict within the file; empty for the file itself."""
    left_out: str
    put_in_front: str
    state: State
    missing: Sequence[str]
    unexpected: Sequence[str]
    reshaped: Sequence[str]
    """Names whose tensors have another shape, with both."""

    @property
    def fault_count(self) -> int:
        """The count of names that do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    @property
    def words(self) -> str:
        """How the file was read, in words; empty for the file as it is."""
        parts = [f"taken from {self.key!r} of the file"] if self.key else []
        parts += [f"without the prefix {self.left_out!r}"] if self.left_out else []
        parts += [f"with the prefix {self.put_in_front!r} put in front"] if self.put_in_front else []
        return ", ".join(parts)

    @property
    def faults(self) -> str:
        """What does not fit, in words: counts, and the first names of each kind."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.reshaped))
        return "; ".join(f"{len(names)} {kind}: {listing(names, _MOST_NAMES)}" for kind, names in kinds if names)


def fill(module: nn.Module, content: Mapping[str, object], weights: str, key: str = "") -> tuple[str, ...]:
    """Fill a network with what a checkpoint holds, and return in words how it was read.

    What is one dict and one common prefix away is found; `key` names the dict. Raises ModelError, with counts of what
    is missing, unexpected or of another shape, where nothing fits, and UsageError where several dicts fit that differ.
    """
    states = _states(content, key, weights)
    wanted = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    if not key and "" in states and _loads(module, states[""]):
        return _rounded(states[""], wanted)
    readings = [_nearest(name, state, wanted) for name, state in states.items()]
    fitting = [reading for reading in readings if not reading.fault_count]
    if len(fitting) > 1 and not all(_is_same(fitting[0].state, other.state) for other in fitting[1:]):
        names = listing(reading.key or "the file itself" for reading in fitting)
        raise UsageError(
            f"weights {weights!r} hold several sets that fit and differ: {names}; choose one, as in "
            f"--weights {weights}#{fitting[-1].key}"
        )
    # a network may read names of its own accord that a comparison of names does not know
    reading = fitting[0] if fitting else next((one for one in readings if _loads(module, states[one.key])), None)
    if reading is None:
        nearest = min(readings, key=lambda reading: reading.fault_count)
        words = f" ({nearest.words})" if nearest.words else ""
        raise ModelError(
            f"weights {weights!r} do not fit the model: of the {len(wanted)} tensors of the network and the "
            f"{len(nearest.state)} of the file{words}, {nearest.faults}"
        )
    if fitting:
        _load(module, reading.state, weights)
    beside = [name for name in content if name != reading.key] if reading.key else []
    words = f"weights {reading.words}" + (f"; beside it lie {listing(beside)}, unused" if beside else "")
    return (*([words] if reading.words else []), *_rounded(reading.state, wanted))


def _states(content: Mapping[str, object], key: str, weights: str) -> dict[str, State]:
    """Return the sets of tensors in a checkpoint by their names in it; raise ModelError if there are none."""
    held = [("", content), *((name, value) for name, value in content.items() if isinstance(value, Mapping))]
    states: dict[str, State] = {name: state for name, value in held if (state := _tensors(value))}
    if key and key not in states:
        raise UsageError(
            f"weights {weights!r} hold no tensors under {key!r}; they do under {listing(filter(None, states))}"
        )
    if not states:
        raise ModelError(f"weights {weights!r} hold no tensors, nor a dict of them; they hold {listing(content)}")
    return {key: states[key]} if key else states


def _tensors(content: Mapping[str, object]) -> dict[str, Tensor]:
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _nearest(key: str, state: State, wanted: State) -> _Reading:
    """Return the way to read a state dict that has the fewest faults; of several, that with the shortest prefixes."""
    firsts = {f"{name.partition('.')[0]}." for name in state if "." in name}
    ways = product({"", *_WRAPPERS, *firsts, *_shared_prefixes(state)}, ["", *_shared_prefixes(wanted)])
    readings = [
        _read(key, state, wanted, left_out, put) for left_out, put in sorted(ways, key=lambda way: len("".join(way)))
    ]
    return min(readings, key=lambda reading: reading.fault_count)


def _shared_prefixes(state: State) -> list[str]:
    """Return the dotted beginnings that all names have in common: `module.`, `module.net.`."""
    first, last = min(state, default=""), max(state, default="")  # what these share, all that lie between them share
    ends = [index + 1 for index, character in enumerate(first) if character == "."]
    return [first[:end] for end in ends if last.startswith(first[:end])]


def _read(key: str, state: State, wanted: State, left_out: str, put_in_front: str) -> _Reading:
    """Return one way to read a state dict, with what does not fit; a wrapper's name is left out within names too."""
    named: dict[str, Tensor] = {}
    collisions = []
    for name, value in state.items():
        plain = name.removeprefix(left_out)
        if left_out in _WRAPPERS:
            plain = plain.replace(f".{left_out}", ".")
        if put_in_front + plain in named:
            collisions.append(name)
        named[put_in_front + plain] = value
    return _Reading(
        key=key,
        left_out=left_out,
        put_in_front=put_in_front,
        state=named,
        missing=[name for name in wanted if name not in named and not name.endswith(_COUNTERS)],
        unexpected=[*(name for name in named if name not in wanted), *collisions],
        reshaped=[
            f"{name} {tuple(value.shape)}, not {tuple(wanted[name].shape)}"
            for name, value in named.items()
            if name in wanted and value.shape != wanted[name].shape
        ],
    )


def _is_same(one: State, other: State) -> bool:
    """Return whether two state dicts hold the same tensors under the same names."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def _loads(module: nn.Module, state: State) -> bool:
    """Fill the network with a state dict just as it is, if the network takes it."""
    try:
        module.load_state_dict(state)
    except RuntimeError:
        return False
    return True


def _load(module: nn.Module, state: State, weights: str) -> None:
    """Fill the network with a state dict whose names fit; counters of batch norms may be missing."""
    try:
        result = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"weights {weights!r} do not fit the model: {in_one_line(error)}") from None
    missing = [name for name in result.missing_keys if not name.endswith(_COUNTERS)]
    if missing or result.unexpected_keys:
        raise ModelError(
            f"weights {weights!r} do not fit the model: missing are {listing(missing)}; unexpected are "
            f"{listing(result.unexpected_keys)}"
        )


def _rounded(state: State, wanted: State) -> tuple[str, ...]:
    """Return in words how many tensors lose digits in the network's own precision."""
    lossy = [
        value.dtype
        for name, value in state.items()
        if name in wanted and torch.promote_types(value.dtype, wanted[name].dtype) != wanted[name].dtype
    ]
    kinds = listing(sorted({str(kind).removeprefix("torch.") for kind in lossy}))
    return (f"{len(lossy)} tensors of {kinds} were rounded to the network's precision",) if lossy else ()
