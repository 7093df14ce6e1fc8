"""Batch dependence: values of a picture that hang on the other pictures of its batch, on its place there, or on chance.

A network whose values do so cannot be indexed truly: what is stored of a picture would be of its company too.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope_pipelines.vision.recording.owners_code import owners_code
from unitscope_pipelines.vision.recording.peaks import arranged
from unitscope_pipelines.vision.recording.recording import Images, hooked_modules, output_tensors, record
from unitscope_schemas.units import LayerSpec

CLOSE = 1e-4
"""Share of a layer's largest value by which values may differ beside others: kernels of one shape round alike."""
ROUNDED, COARSE = 1e-2, 1e-1
"""Shares by which they may differ in a batch of another shape, where kernels round otherwise: in float32, in half
precision. Deep random networks came to 1e-3."""
_MOST_ROWS = 32
_TRIED_PICTURES = 96
"""Count of pictures that run again through a network that draws random numbers, of which few may show in values."""
_BATCHES = "make it take batches of any length, or index with --batch-size 1 if it takes one picture only"

Rows = Float[Tensor, "..."]
"""A layer's values for a few pictures."""


@dataclass(frozen=True)
class BatchDependence:
    """The first layer, in order of execution, that gives a picture other values than it gave before."""

    layer: str
    when: str
    """Circumstances of the second forward, in words."""
    share: float
    """Largest difference, as a share of the layer's largest value."""

    def __str__(self) -> str:
        return (
            f"layer {self.layer} puts out other values for the same picture {self.when}, by up to {self.share:.2g} of "
            "its largest value"
        )


class _Trial(NamedTuple):
    """A second forward, and where pictures of the first lie in it."""

    when: str
    images: Images
    rows: Mapping[int, int]
    """Rows of the first batch by the row in which the same picture lies now."""
    is_same_shape: bool = True
    before: Images | None = None
    """Pictures that run before it, which a network may remember."""
    tries: int = 1
    """Count of times that it runs at most."""


def find_batch_dependence(
    model: nn.Module,
    layers: Sequence[LayerSpec],
    pictures: Float[Tensor, "4 channel row col"],
    extremes: Sequence[Float[Tensor, "1 channel row col"]],
    batch_size: int,
) -> BatchDependence | None:
    """Return how recorded values depend on a picture's batch or on chance; None if they depend on the picture alone.

    `pictures`, and `extremes` unlike them, are as the network takes them. Raises ModelError for a network that does not
    run on batches.
    """
    first = pictures if batch_size > 1 else pictures[:1]
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        states = _random_states()
        plain = _recorded(model, layers, first, first)
        tries = 1 if states == _random_states() else _TRIED_PICTURES // len(first)
        others = pictures.flip(0)[: len(first)]
        trials = [*_again(first, others, tries), *(_beside(first, extremes, batch_size) if batch_size > 1 else ())]
        for trial in trials:
            for _ in range(trial.tries):
                found = _first_difference(plain, _recorded(model, layers, trial.images, trial.before), trial)
                if found is not None:
                    return _innermost(model, first, trial) or replace(found, layer=repr(found.layer))
    return None


def _again(first: Images, others: Images, tries: int) -> Iterator[_Trial]:
    """Yield forwards of the very first batch, which may come out otherwise by chance or by memory."""
    rows = {row: row for row in range(len(first))}
    yield _Trial("by chance, when it comes again", first, rows, tries=tries)
    yield _Trial("after other pictures than before", first, rows, before=others)


def _beside(first: Images, extremes: Sequence[Float[Tensor, "1 channel row col"]], batch_size: int) -> Iterator[_Trial]:
    """Yield forwards of the same pictures in other company, at another place, alone, and in as many as a run takes."""
    last = len(first) - 1
    for extreme in extremes:
        images = first.clone()
        images[1:last] = extreme
        yield _Trial("beside other pictures", images, {0: 0, last: last})
    yield _Trial("at another place of the batch", first.flip(0), {row: last - row for row in range(last + 1)}, False)
    yield _Trial("alone", first[:1], {0: 0}, False)
    rows = torch.arange(min(batch_size, _MOST_ROWS)) % len(first)
    if len(rows) != len(first):
        yield _Trial(f"in a batch of {len(rows)}", first[rows], dict(enumerate(rows.tolist())), False)


def _recorded(
    model: nn.Module, layers: Sequence[LayerSpec], images: Images, before: Images | None = None
) -> dict[str, Rows]:
    """Return the outputs of the recorded layers for a batch, image by image; `before` runs first."""
    specs = {layer.name: layer for layer in layers}

    def keep(name: str, output: Tensor) -> Rows:
        return arranged(output, specs[name]).clone()

    with record(model, list(specs), keep) as recorded:
        _run(model, before, images)
    return dict(recorded)


def _run(model: nn.Module, *batches: Images | None) -> None:
    """Run batches one after the other; raise ModelError where the network's own code fails."""
    for images in batches:
        if images is not None:
            with owners_code(f"a forward on a batch of shape {tuple(images.shape)}", _BATCHES):
                model(images.clone())


def _innermost(model: nn.Module, first: Images, trial: _Trial) -> BatchDependence | None:
    """Return the first of all module calls that differs, in order of execution.

    Modules whose output has no axis of images are left out; chance may need some tries to show again.
    """
    kinds = {path: type(module).__name__ for path, module in hooked_modules(model).items()}
    plain = _of_all_modules(model, first, first)
    for _ in range(trial.tries):
        found = _first_difference(plain, _of_all_modules(model, trial.images, trial.before), trial)
        if found is not None:
            path = found.layer.rpartition("@")[0]
            name = found.layer if f"{path}@1" in plain else path
            return replace(found, layer=f"{name!r} ({kinds[path]})")
    return None


def _of_all_modules(model: nn.Module, images: Images, before: Images | None) -> dict[str, Rows]:
    """Return what every module call puts out for each image, in order of execution, by `path@call`."""
    outputs: dict[str, Rows] = {}
    calls: Counter[str] = Counter()

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def take(_module: nn.Module, _inputs: object, output: object) -> None:
            by_image = [tensor for tensor in output_tensors(output) if tensor.dim() and len(tensor) == len(images)]
            if by_image:
                outputs[f"{path}@{calls[path]}"] = torch.cat([tensor.flatten(1) for tensor in by_image], 1)
            calls[path] += 1

        return take

    _run(model, before)
    handles = [module.register_forward_hook(hook(path)) for path, module in hooked_modules(model).items() if path]
    try:
        _run(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _first_difference(plain: Mapping[str, Rows], again: Mapping[str, Rows], trial: _Trial) -> BatchDependence | None:
    """Return the first layer whose values for the same pictures differ, by more than kernels round."""
    rows = list(trial.rows)
    for name, before in plain.items():
        after = again.get(name)
        expected = before[[trial.rows[row] for row in rows]]
        if after is None or after[rows].shape != expected.shape:
            return BatchDependence(name, trial.when, 1.0)
        share = _difference(expected, after[rows])
        other_shape = ROUNDED if before.dtype in (torch.float32, torch.float64) else COARSE
        if share > (CLOSE if trial.is_same_shape else other_shape):
            return BatchDependence(name, trial.when, share)
    return None


def _difference(expected: Rows, found: Rows) -> float:
    """Return the largest difference as a share of the largest finite value; where both are NaN, there is none."""
    expected, found = expected.double(), found.double()
    alike = (expected == found) | (expected.isnan() & found.isnan())
    gap = torch.where(alike, 0.0, (expected - found).abs()).nan_to_num(nan=torch.inf, posinf=torch.inf)
    if not gap.numel() or not gap.any():
        return 0.0
    largest = float(expected.nan_to_num(posinf=0, neginf=0).abs().max())
    return float(gap.max()) / largest if largest else torch.inf


def _random_states() -> tuple[bytes, object, bytes]:
    """Return the states of the generators that a network may draw from."""
    _, keys, *rest = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), (random.getstate(), rest), np.asarray(keys).tobytes()
