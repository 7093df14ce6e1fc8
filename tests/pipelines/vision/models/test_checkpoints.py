"""Checkpoints as people have them: under names and prefixes, with other things beside, or of another network."""

from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unitscope_pipelines.vision.models.models import load_model, reload_model
from unitscope_pipelines.vision.models.weights import fill_from_file, located
from unitscope_schemas.errors import ModelError, UsageError


def network(seed: int = 0) -> nn.Module:
    """A network with a batch norm, whose tensors lie at two depths."""
    torch.manual_seed(seed)
    body = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), relu=nn.ReLU()))
    return nn.Sequential(OrderedDict(features=body, head=nn.Conv2d(4, 5, 1)))


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def filled(content: Any, folder: Path, key: str = "", model: nn.Module | None = None) -> tuple[str, ...]:
    """Fill a network from a file of this content, check that it holds the weights of seed 1, return what was said."""
    path, model = folder / "checkpoint.pt", model or network()
    torch.save(content, path)
    notes = fill_from_file(model, f"{path}#{key}" if key else str(path))
    right = network(1).state_dict()
    inner = {name.removeprefix("backbone."): value for name, value in model.state_dict().items()}
    assert all(torch.equal(inner[name], right[name]) for name in right)
    return notes


STATE = dict(network(1).state_dict())
OTHERS = {"epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}, "param_groups": []}}
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": (STATE, ""),
    "module.": (prefixed("module.", STATE), "without the prefix 'module.'"),
    "model. of Lightning": ({"state_dict": prefixed("model.", STATE), **OTHERS}, "without the prefix 'model.'"),
    "_orig_mod. of compilation": (prefixed("_orig_mod.", STATE), "without the prefix '_orig_mod.'"),
    "two prefixes": (prefixed("module.encoder.", STATE), "without the prefix 'module.encoder.'"),
    **{
        name: ({name: STATE, **OTHERS}, f"taken from '{name}' of the file; beside it lie epoch, optimizer, unused")
        for name in ("state_dict", "model", "model_state_dict", "ema", "net", "a_name_of_ones_own")
    },
    "both": ({"state_dict": prefixed("module.", STATE)}, "taken from 'state_dict' of the file, without the prefix"),
    "within": (
        {name.replace("features.", "features.module."): value for name, value in STATE.items()},
        "without the prefix 'module.'",
    ),
    "beside plain data": (
        {
            "model": STATE,
            "args": Namespace(lr=0.1, out=Path("runs")),
            "best": np.float64(0.7),
            "history": np.arange(3),
            "log": defaultdict(list),
        },
        "taken from 'model' of the file; beside it lie args, best, history, log, unused",
    ),
    "without counters": ({"model": {k: v for k, v in STATE.items() if "tracked" not in k}}, "taken from 'model'"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_is_one_dict_and_one_prefix_away_is_loaded_and_says_how(kind: str, tmp_path: Path) -> None:
    content, words = KINDS[kind]
    notes = filled(content, tmp_path)
    assert bool(notes) == bool(words) and all(words in note for note in notes)


def test_a_prefix_that_the_network_has_and_the_checkpoint_has_not_is_put_in_front(tmp_path: Path) -> None:
    wrapped = nn.Sequential(OrderedDict(backbone=network()))
    assert filled(STATE, tmp_path, model=wrapped) == ("weights with the prefix 'backbone.' put in front",)


def test_safetensors_have_prefixes_too(tmp_path: Path) -> None:
    save_file(
        prefixed("module.", {name: value.contiguous() for name, value in STATE.items()}), tmp_path / "w.safetensors"
    )
    model = network()
    assert fill_from_file(model, str(tmp_path / "w.safetensors")) == ("weights without the prefix 'module.'",)
    assert torch.equal(model.head.weight, STATE["head.weight"])  # type: ignore[union-attr, arg-type]


def test_of_several_sets_that_fit_one_must_be_named(tmp_path: Path) -> None:
    content = {"model": dict(network(2).state_dict()), "ema": prefixed("module.", STATE)}
    with pytest.raises(UsageError, match=r"several sets that fit and differ: model, ema; .*checkpoint\.pt#ema"):
        filled(content, tmp_path)
    assert "from 'ema' of the file, without the prefix 'module.'" in filled(content, tmp_path, "ema")[0]
    assert filled({"model": STATE, "ema": dict(STATE)}, tmp_path)  # the same twice is no choice
    with pytest.raises(UsageError, match="no tensors under 'emma'; they do under model, ema"):
        filled(content, tmp_path, "emma")
    assert located(f"{tmp_path}/checkpoint.pt#ema") == f"{tmp_path}/checkpoint.pt#ema"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing and unexpected": (
        prefixed("module.", {name: value for name, value in STATE.items() if "bn" not in name} | {"fc": torch.ones(3)}),
        r"5 of the file \(without the prefix 'module\.'\), 4 missing: features\.bn\.weight, .*; 1 unexpected: fc$",
    ),
    "another shape": (
        {"state_dict": STATE | {"head.weight": torch.ones(7, 4, 1, 1)}},
        r"\(taken from 'state_dict' of .*\), 1 of another shape: head\.weight \(7, 4, 1, 1\), not \(5, 4, 1, 1\)$",
    ),
    "beside the prefix": (
        {"state_dict": prefixed("model.", STATE) | {"loss.weight": torch.ones(3)}},
        r"without the prefix 'model\.'\), 1 unexpected: loss\.weight$",
    ),
    "too deep": ({"deep": {"deeper": STATE}}, r"hold no tensors, nor a dict of them; they hold deep$"),
    "none": ({"epoch": 3}, r"hold no tensors, nor a dict of them; they hold epoch$"),
    "twice": (STATE | prefixed("module.", STATE), r"9 unexpected: module\.features\.conv\.weight, "),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_checkpoint_that_does_not_fit_shows_counts_of_what_is_missing_and_unexpected(
    kind: str, tmp_path: Path
) -> None:
    content, message = WRONG[kind]
    with pytest.raises(ModelError, match=message) as raised:
        filled(content, tmp_path)
    assert "\x1b" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (network(), "run the code of .*; save model.state_dict\\(\\) alone"),
        ([STATE], "holds list, not a state dict"),
        (b"no pickle at all", "holds no plain state dict: UnpicklingError"),
    ],
    ids=["whole module", "list", "garbage"],
)
def test_a_file_that_holds_no_state_dict_says_so_in_one_line_without_escape_codes(
    content: Any, message: str, tmp_path: Path
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "checkpoint.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match=message) as raised:
        fill_from_file(network(), str(tmp_path / "checkpoint.pt"))
    assert "\x1b" not in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_rounded_is_said(tmp_path: Path) -> None:
    doubles = {name: value.double() if value.is_floating_point() else value for name, value in STATE.items()}
    assert filled(doubles, tmp_path) == ("8 tensors of float64 were rounded to the network's precision",)


def test_how_a_checkpoint_was_read_is_part_of_the_manifest_and_it_is_read_so_again(tmp_path: Path) -> None:
    drawn = load_model("timm:test_resnet", "random:5")
    torch.save({"ema": prefixed("module.", drawn.module.state_dict()), "model": {}}, tmp_path / "c.pt")
    loaded = load_model("timm:test_resnet", str(tmp_path / "c.pt"))
    assert loaded.entry.notes == (
        "weights taken from 'ema' of the file, without the prefix 'module.'; beside it lie model, unused",
    )
    assert loaded.entry.weights_digest == drawn.entry.weights_digest
    assert reload_model(loaded.entry).entry == loaded.entry
