"""The kind of device that records belongs to an atlas: its values are those of one."""

from pathlib import Path

import pytest

from tests.tables import manifest_of
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.plan import _device
from unitscope_pipelines.vision.recording.device import choose_device
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
    assert _device(config("auto"), made) == "cpu"
    assert _device(config("auto"), made.model_copy(update={"device": "cuda"})) == "cuda"
    assert _device(config("cuda"), made) == "cuda"
    assert _device(config("cpu"), None) == "cpu"


@pytest.mark.parametrize("name", ["cuda:1", "mps", "gpu", ""])
def test_other_devices_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UsageError, match="is not one of auto, cpu, cuda"):
        choose_device(name)
    with pytest.raises(UsageError, match="is not one of auto, cpu, cuda"):
        _device(config(name), None)
