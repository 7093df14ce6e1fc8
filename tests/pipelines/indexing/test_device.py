"""The kind of device that records belongs to an atlas: its values are those of one."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.tables import manifest_of
from unitscope_pipelines.cluster.workers import TaskResult
from unitscope_pipelines.indexing import arithmetic
from unitscope_pipelines.indexing.arithmetic import batch_size, device_kind
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.vision.models.models import load_model
from unitscope_pipelines.vision.recording.arithmetic import arithmetic as arithmetic_of
from unitscope_pipelines.vision.recording.device import choose_device
from unitscope_schemas.entries.model import Precision
from unitscope_schemas.errors import UsageError
from unitscope_schemas.manifest import atlas_key


def config(device: str) -> IndexConfig:
    return IndexConfig(corpus="pictures", atlas="atlas", device=device)


def test_another_kind_of_device_is_another_key_and_that_of_a_cpu_is_what_it_was(tiny_atlas: Path) -> None:
    manifest = manifest_of(tiny_atlas)
    names = [entry.spec.name for entry in manifest.layers]
    arithmetic = manifest.model, manifest.preprocessing, names, manifest.precision, manifest.batch_size
    assert manifest.device == "cpu"
    assert atlas_key(*arithmetic, "cpu") == manifest.atlas_key
    assert atlas_key(*arithmetic, "cuda") != manifest.atlas_key


def test_a_run_stays_on_the_kind_of_device_that_made_the_atlas_unless_told_otherwise(tiny_atlas: Path) -> None:
    made = manifest_of(tiny_atlas)
    assert device_kind(config("auto"), made) == "cpu"
    assert device_kind(config("auto"), made.model_copy(update={"device": "cuda"})) == "cuda"
    assert device_kind(config("cuda"), made) == "cuda"
    assert device_kind(config("cpu"), None) == "cpu"


def no_run(_: int) -> bool:
    return False


def test_the_batch_size_is_that_of_the_atlas_unless_told_otherwise(tiny_atlas: Path) -> None:
    made, model = manifest_of(tiny_atlas), load_model("efficientnet-lite:0", "random:0")
    asked = config("auto")
    assert batch_size(asked, made, model, "cpu", no_run) == made.batch_size == 8
    assert batch_size(asked, None, model, "cpu", no_run) == 32
    assert batch_size(asked.model_copy(update={"batch_size": 7}), made, model, "cuda", no_run) == 7


def test_on_a_gpu_the_batch_size_is_measured_unless_a_run_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = load_model("efficientnet-lite:0", "random:0"), config("auto")
    timed: list[dict[int, float]] = []

    def on_a_pretended_card(make: Callable[[], Callable[[str], dict[int, float]]], *_: object) -> list[TaskResult]:
        timed.append(make()("cpu"))
        return [TaskResult({32: 1.0, 64: 2.0, 128: 2.01}, "node")]

    monkeypatch.setattr(arithmetic, "SIZES", (2, 4))
    monkeypatch.setattr(arithmetic, "connected", lambda _: nullcontext())
    monkeypatch.setattr(arithmetic, "resources", lambda *_: None)
    monkeypatch.setattr(arithmetic, "each", on_a_pretended_card)
    assert batch_size(asked, None, model, "cuda", no_run) == 64
    assert [list(rates) for rates in timed] == [[2, 4]]
    assert batch_size(asked, None, model, "cuda", lambda size: size == 4) == 4
    assert len(timed) == 1


def test_tf32_is_of_gpus_alone(tiny_atlas: Path) -> None:
    asked = config("auto").model_copy(update={"precision": "tf32"})
    made = manifest_of(tiny_atlas)
    assert device_kind(asked, made.model_copy(update={"device": "cuda"})) == "cuda"
    with pytest.raises(UsageError, match=r"tf32 is an arithmetic of GPUs.*--precision fp32"):
        device_kind(asked, made)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_only_tf32_computes_in_it_on_a_gpu(precision: Precision) -> None:
    with arithmetic_of(torch.device("cuda"), precision):
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")


@pytest.mark.parametrize("name", ["cuda:1", "mps", "gpu", ""])
def test_other_devices_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UsageError, match="is not one of auto, cpu, cuda"):
        choose_device(name)
    with pytest.raises(UsageError, match="is not one of auto, cpu, cuda"):
        device_kind(config(name), None)
