"""Networks of timm, judged by oracles: `python -m tests.pipelines.vision.timm_sweep` adds rows to docs/timm.md.

A network is built with random weights at a small size. Of its default layers, and of one module of each other class,
either the values and boxes are right, or the layer is refused with a reason.
"""

import argparse
import copy
import json
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
import timm
import torch
from timm.models import _registry
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tests.pipelines.vision.receptive_fields.oracles import assert_boxes_hold_for_nan
from unitscope_pipelines.vision.models.blocks import usual_blocks
from unitscope_pipelines.vision.models.freezing import freeze
from unitscope_pipelines.vision.models.models import VisionModel, choose_layers
from unitscope_pipelines.vision.receptive_fields.dead_leaves import dead_leaves
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.fusing import find_fusions
from unitscope_pipelines.vision.recording.peaks import arranged, peaks
from unitscope_pipelines.vision.recording.recording import record, split_call
from unitscope_schemas.entries.model import ModelEntry, Preprocessing
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Location, Size
from unitscope_schemas.units import LayerSpec

PAGE = Path(__file__).parents[3] / "docs" / "timm.md"
SIZES_PX = (96, 128, 160, 192, 224, 256, 288, 384)
"""Sides of the input that are tried until a network takes one."""
MOST_PARAMETERS = 7_000_000
"""Most weights of networks that are looked at in full, and of each module of timm the smallest, whatever its size."""
LONGEST_BUILD_S = 10
"""Networks whose random weights take one core longer than this to make are listed and not judged."""
MOST_LAYERS, LAYERS_BRIEFLY = 10, 3
"""Most layers that are judged of those networks, and of the others: the first, middle and last default layers."""
TIMEOUT_S = 120
PICTURES = 3
ROUNDING = 1e-4
"""Share of a layer's largest value by which peaks may differ; where plain forwards, one picture contiguous or a batch
with channels last, are themselves far from one in double precision, thrice that is allowed."""


@dataclass
class Verdict:
    """What the oracles say of one network."""

    name: str
    family: str
    parameters: int = 0
    size_px: int = 0
    outcome: str = "right"
    right: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    note: str = ""
    seconds: float = 0.0


class _LateError(Exception):
    """Ends a network that takes too long."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise inside the context when it computes longer than this."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise _LateError

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def family_of(name: str) -> str:
    """Return the module of timm that the network is written in."""
    return str(_registry._model_to_module[name])


def parameter_count(name: str) -> int:
    """Return the number of the network's weights, without making them."""
    with torch.device("meta"):
        return sum(weights.numel() for weights in timm.create_model(name).parameters())


def is_built_in_time(name: str) -> bool:
    """Return whether the network is made within LONGEST_BUILD_S."""
    try:
        with within(LONGEST_BUILD_S):
            timm.create_model(name)
    except _LateError:
        return False
    return True


def built(name: str) -> tuple[nn.Module, int]:
    """Return the network with random weights and the least side of an input that it takes."""
    native = timm.get_pretrained_cfg(name, allow_unregistered=True)
    for size in (*SIZES_PX, native.input_size[-1] if native else 224):
        for options in ({"img_size": size}, {}):
            torch.manual_seed(3)
            try:
                module = stirred(timm.create_model(name, **options).eval().requires_grad_(False))
            except (TypeError, AssertionError, ValueError, RuntimeError):
                continue
            try:
                with torch.inference_mode():
                    module(torch.zeros(2, *input_shape(module, size)))
            except (AssertionError, ValueError, RuntimeError):
                break
            return module, size
    raise ModelError(f"no input of {', '.join(map(str, SIZES_PX))} pixels fits, nor its own")


def stirred(module: nn.Module) -> nn.Module:
    """Give weights that are constant when a network is made other values, as training does.

    Otherwise branches scaled by zero and batch norms that do nothing would hide what is wrong with them.
    """
    generator = torch.Generator().manual_seed(5)
    for name, values in [*module.named_parameters(), *module.named_buffers()]:
        if values.is_floating_point() and values.dim() == 1 and len(values) and bool((values == values[0]).all()):
            scale = name.endswith(("weight", "var", "gamma", "gain", "scale")) or float(values[0]) != 0
            drawn = torch.rand(values.shape, generator=generator)
            values.copy_(0.5 + drawn if scale else 0.2 * (drawn - 0.5))
    return module


def input_shape(module: nn.Module, size: int) -> tuple[int, int, int]:
    """Return the shape of the network's inputs."""
    config = getattr(module, "pretrained_cfg", None) or {}
    return int((config.get("input_size") or (3,))[0]), size, size


def wrapped(name: str, module: nn.Module, shape: tuple[int, int, int]) -> VisionModel:
    """Return the network as the product holds it."""
    preprocessing = Preprocessing(
        resize_px=shape[1], input=Size(*shape[1:]), interpolation="bilinear", mean=(127.0,) * 3, std=(64.0,) * 3
    )
    entry = ModelEntry(spec=f"timm:{name}", weights="random:3", weights_digest="0" * 64)
    return VisionModel(entry, module, preprocessing, usual_blocks(module))


def chosen(model: VisionModel, most: int) -> list[str]:
    """Return the first, middle and last default layers, and the first layer of each other class of modules."""
    default, every = choose_layers(model), choose_layers(model, ("**",))
    names = {default[0], default[len(default) // 2], default[-1]}
    seen: set[type[nn.Module]] = {type(model.module.get_submodule(split_call(name)[0])) for name in names}
    for name in every:
        kind = type(model.module.get_submodule(split_call(name)[0]))
        if len(names) < most and kind not in seen and kind is not nn.Identity:
            seen.add(kind)
            names.add(name)
    return [name for name in every if name in names]


def measured(model: VisionModel, names: Sequence[str], verdict: Verdict) -> list[LayerSpec]:
    """Return the layers that are recorded; note the refusals."""
    layers = []
    for name in names:
        try:
            layers += measure_layers(model.module, [name], model.input_shape, picture_count=0)
        except ModelError as error:
            verdict.refused[name] = str(error)
    return layers


def assert_values_hold(plain: nn.Module, model: VisionModel, layers: Sequence[LayerSpec]) -> None:
    """Peaks of the product's fused forward are those of a plain one, picture by picture."""
    pictures = dead_leaves(PICTURES, model.input_shape, np.random.default_rng(7))
    names = [layer.name for layer in layers]
    specs = {layer.name: layer for layer in layers}
    module = freeze(model.module, model.entry.spec)  # channels last, as the product runs it
    fusions = find_fusions(module, names, dead_leaves(2, model.input_shape, np.random.default_rng(0)))
    filled = torch.cat([pictures, torch.zeros_like(pictures[:1])]).contiguous(memory_format=torch.channels_last)
    with (
        torch.inference_mode(),
        record(module, names, lambda name, output: peaks(arranged(output, specs[name]), name)) as found,
        fusions.running(),
    ):
        module(filled)
    exact = hooked(copy.deepcopy(plain).double(), names, filled.double())
    unfused = hooked(freeze(copy.deepcopy(plain), model.entry.spec), names, filled)
    for number, picture in enumerate(pictures):
        for name, output in hooked(plain, names, picture[None]).items():
            layer = specs[name]
            double, batched = (units_first(values[name], layer)[number] for values in (exact, unfused))
            flat = units_first(output, layer)[0]
            far = 3 * max(float((values - double).abs().max()) for values in (flat, batched))
            top, close = flat.max(1).values, max(ROUNDING * max(float(flat.abs().max()), 1e-6), far)
            got = found[name].activation[number]
            off = float((got - top).abs().max())
            assert off <= close, f"{name}: values differ by {off}, of {float(flat.abs().max())}"
            at_place = flat.gather(1, found[name].location[number][:, None])[:, 0]
            assert float((top - at_place).max()) <= 2 * close, f"{name}: another place"


def units_first(output: Tensor, layer: LayerSpec) -> Tensor:
    """Return a layer's output as (image, unit, location), the plain way but for other layouts."""
    values = output if layer.layout is None else arranged(output, layer)
    if layer.kind == "tokens":
        values = values.transpose(1, 2)
    elif layer.kind == "map" and layer.layout is None and layer.channels_last:
        values = values.permute(0, 3, 1, 2)
    values = values.reshape(*values.shape[:2], -1)
    locations = 1 if layer.kind == "vector" else layer.prefix_tokens + layer.grid.height * layer.grid.width
    assert values.shape[1:] == (layer.units, locations), f"{layer.name} puts out {tuple(output.shape)}"
    return values


def hooked(module: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Return the outputs by plain hooks."""
    calls: Counter[str] = Counter()
    outputs: dict[str, Tensor] = {}
    wanted: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for name in names:
        path, call, number = split_call(name)
        wanted.setdefault((path, call), []).append((name, number or 0))

    def hook(path: str, output: object) -> None:
        tensors = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
        for name, number in wanted.get((path, calls[path]), ()):
            outputs[name] = tensors[number].clone()
        calls[path] += 1

    modules = dict(module.named_modules())
    handles = [
        modules[path].register_forward_hook(lambda _module, _inputs, output, path=path: hook(path, output))
        for path in {path for path, _ in wanted}
    ]
    with torch.inference_mode():
        module(images)
    for handle in handles:
        handle.remove()
    return outputs


def assert_noise_outside_changes_nothing(plain: nn.Module, model: VisionModel, layers: Sequence[LayerSpec]) -> None:
    """Other pixels around a location's box leave all units there as they were."""
    size = Size(*model.input_shape[1:])
    base, noise = dead_leaves(2, model.input_shape, np.random.default_rng(11))
    before = hooked(plain, [layer.name for layer in layers], base[None])
    for layer in layers:
        if layer.kind == "vector" or not layer.placed:
            continue
        for location in (Location(0, 0), Location(layer.grid.height // 2, layer.grid.width // 2)):
            box = layer.receptive_field.box_at(location)
            if box.size == size:
                continue
            picture = noise.clone()
            picture[:, box.top : box.bottom, box.left : box.right] = base[:, box.top : box.bottom, box.left : box.right]
            after = hooked(plain, [layer.name], picture[None])[layer.name]
            old, new = (
                as_map(values, layer)[0, :, location.row, location.col] for values in (before[layer.name], after)
            )
            off, largest = float((old - new).abs().max()), float(before[layer.name].abs().max())
            assert off <= 1e-5 * max(largest, 1e-6), f"{layer.name} {location}: changed by {off} from outside {box}"


def judged(name: str, most_layers: int = MOST_LAYERS) -> Verdict:
    """Return what the oracles say of so many layers of the network of this name."""
    verdict, started = Verdict(name, family_of(name)), time.process_time()
    try:
        if not is_built_in_time(name):
            verdict.outcome, verdict.parameters = "slow to build", parameter_count(name)
            return verdict
        with within(TIMEOUT_S):
            _judge(name, most_layers, verdict)
    except _LateError:
        verdict.outcome = "too slow"
    except ModelError as error:
        verdict.outcome, verdict.note = "refused", str(error)
    except Exception as error:  # noqa: BLE001  (whatever a network raises is a fault to list)
        verdict.outcome, verdict.note = "fault", f"{type(error).__name__}: {error}"[:300]
    verdict.seconds = round(time.process_time() - started, 1)
    return verdict


def _judge(name: str, most_layers: int, verdict: Verdict) -> None:
    plain, verdict.size_px = built(name)
    verdict.parameters = sum(weights.numel() for weights in plain.parameters())
    shape = input_shape(plain, verdict.size_px)
    model = wrapped(name, copy.deepcopy(plain), shape)
    for layer in measured(model, chosen(model, most_layers), verdict):
        placed = layer.placed and layer.kind != "vector"
        checks = (
            lambda layer=layer: assert_values_hold(plain, model, [layer]),
            lambda layer=layer: assert_noise_outside_changes_nothing(plain, model, [layer]),
            lambda layer=layer, placed=placed: not placed or assert_boxes_hold_for_nan(plain, [layer], shape, False),
        )
        try:
            for check in checks:
                check()
            verdict.right.append(layer.name)
        except AssertionError as error:
            verdict.wrong[layer.name] = str(error).splitlines()[0][:300]
    if verdict.wrong:
        verdict.outcome = "WRONG"
    elif not verdict.right:
        verdict.outcome = "refused"


@dataclass(frozen=True, order=True)
class Row:
    """A network's row of docs/timm.md."""

    family: str
    parameters_m: float
    name: str
    size_px: int
    outcome: str
    right: int
    refused: int
    reason: str

    @classmethod
    def of(cls, verdict: Verdict) -> "Row":
        """Return what the table says of a verdict."""
        reasons = [*verdict.wrong.values(), verdict.note, *verdict.refused.values()]
        reason = next((text for text in reasons if text), "").replace("|", "/").replace("\n", " ")[:160].rstrip()
        parameters_m = round(verdict.parameters / 1e6, 1)
        counts = len(verdict.right), len(verdict.refused)
        return cls(verdict.family, parameters_m, verdict.name, verdict.size_px, verdict.outcome, *counts, reason)

    @classmethod
    def parse(cls, line: str) -> "Row":
        """Read what `str` wrote."""
        name, parameters_m, size_px, outcome, right, refused, reason = map(str.strip, line.strip("|").split("|"))
        counts = int(right), int(refused)
        return cls(family_of(name), float(parameters_m), name, int(size_px), outcome, *counts, reason)

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.parameters_m} | {self.size_px} | {self.outcome} | {self.right} | {self.refused} | "
            f"{self.reason} |"
        )


HEAD = [
    "| network | weights (M) | input | outcome | right | refused | the first reason |",
    "|---|--:|--:|---|--:|--:|---|",
]


def rows_of(text: str) -> list[Row]:
    """Return the rows of a page that `page` made."""
    lines = text.splitlines()
    return [Row.parse(line) for line in lines[lines.index(HEAD[-1]) + 1 :]]


def page(rows: Sequence[Row]) -> str:
    """Return docs/timm.md: the table of all networks that were judged, and how many were not."""
    known = {row.name for row in rows}
    left_out = Counter(family_of(name) for name in timm.list_models() if name not in known)
    counts = Counter(row.outcome for row in rows)
    lines = [
        "# timm's networks",
        "*Made by `python -m tests.pipelines.vision.timm_sweep`, which judges the networks that have no row here.*",
        f"Architectures of timm {timm.__version__}, with random weights at the least size that each takes: {len(rows)} "
        f"of {len(timm.list_models())}, of {len({row.family for row in rows})} modules. "
        + ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        + f". {sum(row.right for row in rows)} layers are recorded and right, {sum(row.refused for row in rows)} are "
        "refused with a reason.",
        "Looked at are the first, middle and last default layer and the first layer of each other class of modules, at "
        f"most {MOST_LAYERS}; of networks with more than {MOST_PARAMETERS // 10**6} million weights that are not the "
        f"smallest of their module, the first three alone. *Right* is: the peaks of {PICTURES} pictures by the "
        "product's forward are those of plain hooks, other pixels around a box change nothing in it, and not-a-number "
        f"around a box does not reach it. *Too slow* is what takes more than {TIMEOUT_S} s of one core to judge. "
        f"*Slow to build* is a network whose random weights take one core more than {LONGEST_BUILD_S} s to make; it is "
        "not judged.",
    ]
    if left_out:
        missing = ", ".join(f"{count} of {family}" for family, count in sorted(left_out.items()))
        lines.append(f"{left_out.total()} networks have no row yet: {missing}.")
    return "\n\n".join([*lines, "\n".join([*HEAD, *map(str, sorted(rows))])]) + "\n"


def main() -> None:
    """Judge every network that has no row in the page, and add its row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="these networks alone, printed and not written")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.names:
        for name in options.names:
            sys.stdout.write(json.dumps(asdict(judged(name)), indent=1) + "\n")
        return
    rows = rows_of(PAGE.read_text())
    sizes = {name: parameter_count(name) for name in set(timm.list_models()) - {row.name for row in rows}}
    known = {row.family for row in rows}
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        wide = family_of(name) not in known or sizes[name] <= MOST_PARAMETERS
        rows.append(Row.of(judged(name, MOST_LAYERS if wide else LAYERS_BRIEFLY)))
        known.add(rows[-1].family)
        PAGE.write_text(page(rows))
    PAGE.write_text(page(rows))


if __name__ == "__main__":
    main()
