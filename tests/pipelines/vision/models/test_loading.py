"""Loading of networks as people have them: idioms, precisions, several inputs, scripts, names and outputs."""

from pathlib import Path

import pytest
import torch
from torch import nn

from unitscope_pipelines.vision.models.models import VisionModel, choose_layers, load_model
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.recording import outputs_of
from unitscope_schemas.errors import ModelError, UsageError

SOURCE = '''
import random
import torch
from torch import nn
from torch.nn import functional as F

SMALL = {"input_size": (3, 16, 16), "crop_pct": 1.0, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 5, 3)

    def forward(self, images):
        return self.head(F.relu(self.bn(self.conv(images))))


class NoReturn(Plain):
    def train(self, mode=True):
        super().train(mode)
        self.bn.eval()


class NoReturnAnywhere(NoReturn):
    def eval(self):
        self.train(False)

    def requires_grad_(self, requires_grad=True):
        super().requires_grad_(requires_grad)


class SeesToItself(Plain):
    def forward(self, images):
        return super().forward(images.half()).float()


class Inner3d(Plain):
    """A convolution in three dimensions over a stack of two copies."""

    def __init__(self):
        super().__init__()
        self.depth = nn.Conv3d(3, 3, (2, 3, 3), padding=(0, 1, 1))

    def forward(self, images):
        return super().forward(self.depth(torch.stack([images, images], 2)).squeeze(2))


class TwoInputs(Plain):
    def forward(self, images, depth):
        return super().forward(images + depth)


class ListInput(Plain):
    def forward(self, images):
        return super().forward(torch.stack(images))


class Video(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3)

    def forward(self, clip):
        return self.conv(clip)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, images):
        return F.conv2d(images, self.weight)


class WithScript(nn.Module):
    """An eager network one part of which is a script."""

    def __init__(self):
        super().__init__()
        self.stem, self.script = nn.Conv2d(3, 3, 3, padding=1), torch.jit.script(Plain())

    def forward(self, images):
        return self.script(self.stem(images))


class Pyramid(nn.Module):
    """Two maps of two scales, in whatever holds them."""

    def __init__(self, hold):
        super().__init__()
        self.conv, self.hold = nn.Conv2d(3, 4, 3, padding=1), hold

    def forward(self, images):
        fine = self.conv(images)
        return self.hold(fine, F.avg_pool2d(fine, 2))


class Fpn(nn.Module):
    def __init__(self, hold, read):
        super().__init__()
        self.fpn, self.read, self.head = Pyramid(hold), read, nn.Conv2d(4, 2, 1)

    def forward(self, images):
        return self.head(self.read(self.fpn(images)))


class OddNames(nn.Module):
    """Modules whose names read like calls of others."""

    def __init__(self):
        super().__init__()
        self.k = nn.Conv2d(3, 3, 1)
        self.add_module("k@1", nn.Conv2d(3, 3, 3, padding=1))
        self.add_module("m@2", nn.Conv2d(3, 3, 5, padding=2))
        self.add_module("n@out1", nn.Conv2d(3, 3, 7, padding=3))

    def forward(self, images):
        image = self.k(self.k(images))
        return getattr(self, "n@out1")(getattr(self, "m@2")(getattr(self, "k@1")(image)))


def plain(): return Plain(), SMALL
def no_return(): return NoReturn(), SMALL
def no_return_anywhere(): return NoReturnAnywhere(), SMALL
def half(): return Plain().half(), SMALL
def bfloat16(): return Plain().bfloat16(), SMALL
def double(): return Plain().double(), SMALL
def part_half():
    net = Plain()
    net.head.half()
    return net, SMALL
def sees_to_itself(): return SeesToItself().half(), SMALL
def inner_3d(): return Inner3d(), SMALL
def two_inputs(): return TwoInputs(), SMALL
def list_input(): return ListInput(), SMALL
def video(): return Video(), SMALL
def wrong_size(): return nn.Sequential(nn.Flatten(), nn.Linear(100, 3)), SMALL
def scripted(): return torch.jit.script(Plain()), SMALL
def traced(): return torch.jit.trace(Plain().eval(), torch.zeros(1, 3, 16, 16)), SMALL
def compiled(): return torch.compile(Plain()), SMALL
def with_script(): return WithScript(), SMALL
def wraps_script(): return nn.Sequential(torch.jit.script(Plain())), SMALL
def lazy(): return nn.Sequential(nn.LazyConv2d(4, 3)), SMALL
def meta():
    with torch.device("meta"):
        return Plain(), SMALL
def odd_layers():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.AvgPool2d(2)

        def forward(self, images):
            return self.pool(images)

    return Odd(), SMALL
def functional(): return Functional(), SMALL
def born_in_inference_mode():
    with torch.inference_mode():
        return Plain(), SMALL
def tuple_fpn(): return Fpn(lambda *maps: maps, lambda maps: maps[0]), SMALL
def list_fpn(): return Fpn(lambda *maps: list(maps), lambda maps: maps[0]), SMALL
def dict_fpn(): return Fpn(lambda a, b: {"fine": a, "coarse": b}, lambda maps: maps["fine"]), SMALL
def nested_fpn():
    sizes = torch.ones(1, dtype=torch.int64)
    return Fpn(lambda a, b: {"maps": (a, [b]), "sizes": (1, sizes)}, lambda held: held["maps"][0]), SMALL
def odd_names(): return OddNames(), SMALL
def raises():
    raise ValueError("no such\\ncheckpoint")
def leaves():
    raise SystemExit("bye")
'''


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the networks of this module."""
    path = tmp_path_factory.mktemp("loading") / "networks_to_load.py"
    path.write_text(SOURCE)
    return path


IDIOMS = ("no_return", "no_return_anywhere", "born_in_inference_mode")

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


def load(networks: Path, name: str) -> VisionModel:
    return load_model(f"file:{networks}:{name}", "random:0", trust_code=True)


def plain_outputs(networks: Path, images: torch.Tensor) -> torch.Tensor:
    """What the plain network of the same seed puts out in evaluation mode."""
    scope: dict[str, type[nn.Module]] = {}
    exec(networks.read_text(), scope)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return scope["Plain"]().eval()(images).detach()


@pytest.mark.parametrize(
    "name",
    [*IDIOMS, pytest.param("compiled", marks=pytest.mark.long)],
)
def test_idioms_of_loading_give_the_plain_network(name: str, networks: Path) -> None:
    model = load(networks, name)
    assert choose_layers(model) == ["conv", "head"]
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(model.module(images), plain_outputs(networks, images), atol=1e-6)
    assert not any(module.training for module in model.module.modules())
    fields = measure_layers(model.module, ["conv", "head"], model.input_shape)
    assert [layer.receptive_field.effective for layer in fields] == [(3, 3), (5, 5)]
    assert model.entry.notes == ()


@pytest.mark.parametrize("name", ["half", "bfloat16", "double", "part_half"])
def test_a_network_of_another_precision_is_loaded_in_float32_and_says_so(name: str, networks: Path) -> None:
    model = load(networks, name)
    kind = {"half": "float16", "part_half": "float16"}.get(name, name.replace("double", "float64"))
    assert model.entry.notes == (f"weights of {kind} were cast to float32, in which the network runs",)
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(model.module(images), plain_outputs(networks, images), atol=0.05)
    assert [layer.units for layer in measure_layers(model.module, choose_layers(model), model.input_shape)] == [4, 5]


def test_a_network_that_sees_to_its_precision_itself_is_loaded_as_it_is(networks: Path) -> None:
    model = load(networks, "sees_to_itself")
    assert model.entry.notes == () and model.module.conv.weight.dtype == torch.float16
    assert [layer.units for layer in measure_layers(model.module, choose_layers(model), model.input_shape)] == [4, 5]


def test_loading_lays_channels_last_only_where_there_are_four_axes(networks: Path) -> None:
    model = load(networks, "inner_3d")
    assert model.module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.module.depth.weight.is_contiguous()
    layers = measure_layers(model.module, ["conv", "head"], model.input_shape, picture_count=0)
    assert [layer.receptive_field.size for layer in layers] == [(5, 5), (7, 7)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_inputs", r"missing 1 required positional argument: 'depth'.*forward\(images\) takes one batch"),
        ("list_input", r"TypeError: stack.*networks_to_load\.py, line \d+\).*wrap the model"),
        ("video", r"on a batch of shape \(1, 3, 16, 16\) failed.*wrap the model"),
        ("wrong_size", r"cannot be multiplied.*name its input_size in the data config"),
        ("scripted", r"TorchScript.*state_dict\(\)"),
        ("traced", r"TorchScript.*state_dict\(\)"),
        ("wraps_script", r"calls no modules that hooks can see \(0, .* are TorchScript\)"),
        ("lazy", r"no weights yet: 0\.weight.* are lazy"),
        ("meta", r"weights that cannot be read: conv\.weight"),
        ("functional", r"calls no modules in a forward.*nn\.Conv2d for functional"),
        ("odd_layers", r"neither blocks nor convolutions nor linear layers.*name layers: it has pool"),
        ("raises", r"failed: ValueError: no such checkpoint \(.*networks_to_load\.py, line \d+\)$"),
        ("leaves", r"failed: SystemExit: bye \(.*networks_to_load\.py, line \d+\)$"),
    ],
)
def test_a_network_that_cannot_be_loaded_says_in_one_line_what_would_do(
    name: str, message: str, networks: Path
) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        choose_layers(load(networks, name))
    assert "\n" not in str(raised.value)


def test_a_network_one_part_of_which_is_a_script_is_loaded(networks: Path) -> None:
    model = load(networks, "with_script")
    assert choose_layers(model) == ["stem"]
    (layer,) = measure_layers(model.module, ["stem"], model.input_shape)
    assert layer.receptive_field.effective == layer.receptive_field.size == (3, 3)
    with pytest.raises(UsageError, match="no layer matches 'script'; the model has stem"):
        choose_layers(model, ["script"])


@pytest.mark.parametrize("name", ["tuple_fpn", "list_fpn", "dict_fpn", "nested_fpn"])
def test_every_map_that_a_layer_puts_out_has_its_name(name: str, networks: Path) -> None:
    model = load(networks, name)
    assert choose_layers(model, ["fpn"]) == choose_layers(model, ["fpn@out*"]) == ["fpn@out0", "fpn@out1"]
    assert choose_layers(model, ["fpn@out1"]) == ["fpn@out1"]
    layers = measure_layers(model.module, ["fpn@out0", "fpn@out1"], model.input_shape)
    assert [(layer.grid, layer.receptive_field.stride) for layer in layers] == [((16, 16), (1, 1)), ((8, 8), (2, 2))]
    images = torch.randn(2, 3, 16, 16)
    outputs = outputs_of(model.module, ["fpn.conv", "fpn@out0", "fpn@out1"], images)
    assert torch.equal(outputs["fpn@out0"], outputs["fpn.conv"])
    assert torch.equal(outputs["fpn@out1"], nn.functional.avg_pool2d(outputs["fpn.conv"], 2))
    first = outputs_of(model.module, ["fpn"], images)["fpn"]
    assert torch.equal(first, outputs["fpn@out0"])  # as atlases of before record it
    with pytest.raises(ModelError, match="puts out 2 tensors"):
        outputs_of(model.module, ["fpn@out2"], images)
    with pytest.raises(UsageError, match="no layer matches 'fpn@out2'"):
        choose_layers(model, ["fpn@out2"])


def test_a_module_whose_name_reads_like_a_call_is_asked_for_by_the_name_it_is_listed_by(networks: Path) -> None:
    model = load(networks, "odd_names")
    names = choose_layers(model)
    assert names == ["k@0", "k@1", "k@1@0", "m@2", "n@out1"]
    sizes = [layer.receptive_field.size for layer in measure_layers(model.module, names, model.input_shape)]
    assert sizes == [(1, 1), (1, 1), (3, 3), (7, 7), (13, 13)]
    for name in names:
        assert choose_layers(model, [name]) == [name]
    outputs = outputs_of(model.module, ["k@1@0", "m@2"], torch.randn(1, 3, 16, 16))
    assert torch.allclose(outputs["m@2"], getattr(model.module, "m@2")(outputs["k@1@0"]), atol=1e-6)
