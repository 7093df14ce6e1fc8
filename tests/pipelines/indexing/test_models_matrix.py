"""Every family of networks, end to end: recorded as NumPy's argmax says, asked in every way, in boxes that hold."""

import copy
import math
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn
from torchvision import models
from torchvision.transforms.v2 import InterpolationMode

from tests import oracle
from tests.networks import write_networks
from tests.pictures import blobs, stripes
from tests.pipelines.vision.receptive_fields.oracles import assert_boxes_hold_for_nan
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.vision.models.models import load_model
from unitscope_schemas.errors import UsageError
from unitscope_schemas.geometry import Location, Size
from unitscope_schemas.questions import ExplainQuestion, NeighborsQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.crops import cut, picture, read_image
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session

CHECKED_UNITS = 12
PICTURES = 9
BATCH_SIZE = 4  # the last batch has one picture


@dataclass(frozen=True)
class Case:
    """A network and the layers to record; `last` are those whose maps have their channels last."""

    spec: str
    layers: tuple[str, ...]
    last: tuple[str, ...] = ()
    tight: bool = True
    """Whether boxes are exact; those of shifted windows are hulls."""
    token_first: tuple[str, ...] = ()
    """Layers whose output is (token, image, channel)."""
    rolled: tuple[str, ...] = ()
    """Blocks of a Hiera, whose tokens lie in the order of its mask units."""
    suffix: str = "jpg"
    """Kind of the pictures: `npy` for those of twelve channels."""

    def __str__(self) -> str:
        return self.spec


def windowed(spec: str, *layers: str) -> Case:
    return Case(spec, layers, layers, tight=False)


OWN = (
    Case("file:mlp", ("1", "2", "3")),
    Case("file:twice", ("stem", "conv@0", "conv@1", "head")),
    Case("file:vit", ("patch_embed", "blocks.0.attn", "blocks.0.mlp.fc1", "blocks.1")),
    windowed("file:swin", "patch_embed", "layers.0.blocks.1", "layers.1.blocks.1"),
    Case("timm:test_resnet", ("layer1.0", "layer4.0", "fc")),
)

FAMILIES = (
    Case("torchvision:alexnet", ("features.0", "features.10", "classifier.6")),
    Case("torchvision:vgg11", ("features.0", "features.18")),
    Case("torchvision:resnet18", ("layer1.0", "layer4.1.conv2", "layer4.1", "fc")),
    Case("torchvision:densenet121", ("features.denseblock1", "features.denseblock4")),
    Case("torchvision:googlenet", ("inception3a", "inception5b")),
    Case("torchvision:inception_v3", ("Conv2d_1a_3x3", "Mixed_5b", "Mixed_7c")),
    Case("torchvision:mobilenet_v2", ("features.1", "features.18")),
    Case("torchvision:mobilenet_v3_small", ("features.1", "features.12")),
    Case("torchvision:regnet_x_400mf", ("trunk_output.block1.block1-0", "trunk_output.block4.block4-0")),
    Case("torchvision:regnet_y_400mf", ("trunk_output.block1.block1-0", "trunk_output.block4.block4-0")),
    Case("torchvision:efficientnet_b0", ("features.0", "features.1.0", "features.7.0")),
    Case(
        "torchvision:convnext_tiny", ("features.1.0", "features.1.0.block.3", "features.7.2"), ("features.1.0.block.3",)
    ),
    windowed("torchvision:swin_t", "features.1.0", "features.1.0.mlp.0", "features.3.1", "features.7.1"),
    Case(
        "torchvision:vit_b_32",
        (
            "conv_proj",
            "encoder.layers.encoder_layer_0.self_attention",
            "encoder.layers.encoder_layer_0.mlp.0",
            "encoder.layers.encoder_layer_1",
            "encoder.ln",  # the head begins with zeros, in whose space no patch is near another
        ),
    ),
    Case("timm:test_efficientnet", ("blocks.0.0", "blocks.4.0")),
    Case("timm:test_convnext", ("stages.0.blocks.0", "stages.3.blocks.0")),
    Case("timm:vit_tiny_patch16_224", ("patch_embed", "blocks.0.attn", "blocks.0.mlp.fc1", "blocks.11")),
    Case("timm:vit_wee_patch16_reg1_gap_256", ("patch_embed", "blocks.0.attn", "blocks.0.mlp.fc1", "blocks.1")),
    Case("file:registers", ("patch_embed", "norm_pre", "blocks.0.attn", "blocks.0.mlp.fc1", "blocks.11")),
    windowed("timm:swin_tiny_patch4_window7_224", "patch_embed", "layers.0.blocks.1", "layers.3.blocks.1"),
    Case("file:sequence_first", ("patches", "layers.0", "layers.1"), token_first=("layers.0", "layers.1")),
    Case("file:hiera", ("patch_embed", "blocks.0", "blocks.1"), rolled=("blocks.0", "blocks.1"), tight=False),
    Case("file:twelve_channels", ("enter", "down2", "join1", "join2"), suffix="npy"),
    Case("file:unet", ("enter", "down2", "up1", "join1", "up2", "join2")),
    Case("file:detector", ("backbone.body.0.0", "backbone.body.6", "backbone.fpn.inner_blocks.0"), tight=False),
    Case("file:maxvit", ("stem", "stages.0.blocks.0.conv", "stages.0.blocks.0", "stages.1.blocks.0"), tight=False),
    Case("file:hf_vit", ("embeddings", "layers.0.attention.q_proj", "layers.0", "layers.1")),
    Case("file:hf_clip", ("embeddings", "encoder.layers.0.mlp.fc1", "encoder.layers.1")),
    Case("file:hf_dinov2", ("embeddings", "encoder.layer.0.attention", "encoder.layer.1")),
    Case("file:hf_swin", ("embeddings", "encoder.layers.0.blocks.0.mlp.fc1", "encoder.layers.1.blocks.1"), tight=False),
    Case("file:hf_segformer", ("stages.0.blocks.0", "stages.0", "stages.1.blocks.0")),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures of several shapes."""
    folder = tmp_path_factory.mktemp("few")
    for number in range(PICTURES):
        make = blobs if number % 2 else stripes
        make(number, *((96, 128) if number == 2 else (96, 96))).save(folder / f"{number}.jpg", quality=92)
    return folder


@pytest.fixture(scope="module")
def corpora(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of pictures by the suffix of their files: the corpus, and pictures of twelve channels."""
    bands = tmp_path_factory.mktemp("bands")
    for number in range(PICTURES):
        width, chance = 128 if number == 2 else 96, np.random.default_rng(number)
        coarse = torch.from_numpy(chance.integers(0, 256, (12, 6, width // 16)).astype(np.float32))
        smooth = nn.functional.interpolate(coarse[None], (96, width), mode="bilinear")[0]
        np.save(bands / f"{number}.npy", smooth.permute(1, 2, 0).round().to(torch.uint8).numpy())
    return {"jpg": corpus, "npy": bands}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with networks of one's own."""
    return write_networks(tmp_path_factory.mktemp("code"))


def plain_network(spec: str, networks: Path) -> tuple[nn.Module, oracle.Look]:
    """The same network without the product, and how its authors say that it looks at pictures."""
    scheme, _, name = spec.partition(":")
    torch.manual_seed(3)
    if scheme == "torchvision":
        ported = name in ("googlenet", "inception_v3")
        options = {"aux_logits": True, "init_weights": True, "transform_input": True} if ported else {}
        preset = models.get_model_weights(name)["DEFAULT"].transforms()
        mean, std = (tuple(255 * value for value in values) for values in (preset.mean, preset.std))
        look = oracle.Look(preset.resize_size[0], preset.crop_size[0], preset.interpolation, mean, std)
        return models.get_model(name, **options), look
    if scheme == "timm":
        module = timm.create_model(name)
        config = resolve_model_data_config(module)
    else:
        module, config = runpy.run_path(str(networks))[name]()
    channels, _, crop = config["input_size"]
    mean, std = ([config[key]] * channels if channels == 1 else config[key] for key in ("mean", "std"))
    return module, oracle.Look(
        math.floor(crop / config["crop_pct"]),
        crop,
        InterpolationMode(config.get("interpolation", "bilinear")),
        tuple(255 * value for value in mean),
        tuple(255 * value for value in std),
    )


def indexed(case: Case, networks: Path, corpus: Path, atlas: Path, **options: Any) -> Atlas:
    """An atlas by the real index run."""
    config = IndexConfig(
        corpus=str(corpus),
        atlas=str(atlas),
        model=case.spec.replace("file:", f"file:{networks}:"),
        weights="random:3",
        layers=case.layers,
        trust_code=case.spec.startswith("file:"),
        batch_size=BATCH_SIZE,
        workers=1,
        **options,
    )
    index(config, lambda _: None)
    return Atlas(atlas)


def measured(case: Case, module: nn.Module, corpus: Path, look: oracle.Look) -> oracle.Truth:
    """Return what the oracle sees of a case's layers."""
    return oracle.measure(module, list(case.layers), corpus, look, case.last, case.token_first, case.rolled)


def assert_top_holds(case: Case, opened: Atlas, truth: oracle.Truth) -> None:
    found = []
    for entry in opened.manifest.layers:
        spec = entry.spec
        assert spec.channels_last == (spec.name in case.last)
        assert spec.units == truth.activation[spec.name].shape[1]
        for unit in range(min(spec.units, CHECKED_UNITS)):
            page = patches(opened, UnitId(spec.name, unit), TopQuestion(k=4))
            rows = [{"image_id": row.image_id, "activation": row.activation, "row": row.row, "col": row.col}
                    for row in page.rows]  # fmt: skip
            found += oracle.disagreements(truth, spec.name, unit, rows, spec.grid.width, spec.prefix_tokens)
            for row in page.rows:
                whole = picture(opened, read_image(opened, opened.find_image(row.image_id)))
                assert cut(whole, row.box).size == (row.box.size.width, row.box.size.height)
    assert found == []


def assert_explanation_holds(case: Case, session: Session, truth: oracle.Truth) -> None:
    """Activations and percentiles of a picture's units are NumPy's, up to rounding."""
    subject = session.find(f"0.{case.suffix}")
    assert subject.image is not None
    rows, own = session.explain(subject, ExplainQuestion()).rows, truth.ids.index(subject.image.image_id)
    assert len(rows) == min(20, sum(values.shape[1] for values in truth.activation.values()))
    for row in rows:
        values = truth.activation[row.layer][:, row.channel]
        rounding = float(truth.rounding[row.layer][row.channel])
        assert row.activation == pytest.approx(values[own], abs=rounding)
        counts = [int((values <= row.activation + sign * rounding).sum()) for sign in (-1, 1)]
        assert counts[0] <= round(row.percentile * PICTURES) <= counts[1]


def assert_fields_hold(case: Case, networks: Path, opened: Atlas) -> None:
    model = load_model(case.spec.replace("file:", f"file:{networks}:"), "random:3", trust_code=True)
    layers = [entry.spec for entry in opened.manifest.layers if entry.spec.kind != "vector"]
    assert_boxes_hold_for_nan(model.module, layers, model.input_shape, case.tight)


@pytest.mark.parametrize("case", [*OWN, *(pytest.param(case, marks=pytest.mark.long) for case in FAMILIES)], ids=str)
def test_networks_answer_as_the_oracle(
    case: Case, networks: Path, corpora: dict[str, Path], tmp_path: Path, ray_session: None
) -> None:
    corpus = corpora[case.suffix]
    opened = indexed(case, networks, corpus, tmp_path / "a")
    module, look = plain_network(case.spec, networks)
    double = copy.deepcopy(module).double()
    truth, exact = (measured(case, one, corpus, look) for one in (module, double))
    truth = truth.beside(exact)
    assert_top_holds(case, opened, truth)
    session = Session(tmp_path / "a")
    assert_explanation_holds(case, session, truth)
    nearest = session.neighbors(session.find(f"1.{case.suffix}"), NeighborsQuestion(exact=True)).rows
    assert len(nearest) == PICTURES
    assert next(row for row in nearest if row.path == f"1.{case.suffix}").score >= nearest[0].score - 1e-3
    assert_fields_hold(case, networks, opened)
    opened.close()


def with_latents(networks: Path) -> tuple[nn.Module, oracle.Look]:
    """The network that calls a module twice, whose `stem.latents` puts out what the dictionary makes of its stem."""
    module, look = plain_network("file:twice", networks)
    torch.manual_seed(3)
    coder = runpy.run_path(str(networks))["of_stem"]()
    stem = module.get_submodule("stem")
    stem.latents = nn.Identity()

    def run(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        stem.latents(coder(output.movedim(1, 3))[0].movedim(3, 1))

    stem.register_forward_hook(run)
    return module, look


def test_latents_are_indexed_and_their_code_is_not_run_unless_trusted(
    networks: Path, corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    case = Case("file:twice", ("stem", "conv@0", "conv@1"))
    opened = indexed(case, networks, corpus, tmp_path / "a", latents=(f"stem=file:{networks}:of_stem",))
    names = [entry.spec.name for entry in opened.manifest.layers]
    assert names == ["stem.latents", "stem", "conv@0", "conv@1"]
    module, look = with_latents(networks)
    assert_top_holds(case, opened, oracle.measure(module, names, corpus, look))
    outside = tmp_path / "outside.png"
    blobs(77).save(outside)
    closed, trusted = Session(tmp_path / "a"), Session(tmp_path / "a", trust_code=True)
    rows = closed.explain(closed.find("0.jpg"), ExplainQuestion(layer="stem.latents")).rows
    assert len(rows) == 20 and min(row.activation for row in rows) >= 0
    with pytest.raises(UsageError, match="--trust-code"):
        closed.explain(closed.find(str(outside)), ExplainQuestion())
    assert len(trusted.explain(trusted.find(str(outside)), ExplainQuestion(layer="stem.latents")).rows) == 20


@pytest.mark.long
def test_a_convolution_before_an_inplace_relu_shows_negative_values(
    networks: Path, corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    opened = indexed(Case("torchvision:alexnet", ("features.10",)), networks, corpus, tmp_path / "a")
    session, unit = Session(tmp_path / "a"), UnitId("features.10", 0)
    values = session.activation_map(session.find("0.jpg"), unit).values
    assert np.min(values) < 0
    lowest = [
        patches(opened, UnitId("features.10", channel), TopQuestion(k=1, order="asc")).rows[0].activation
        for channel in range(256)
    ]
    assert min(lowest) < 0


@pytest.mark.long
def test_patch_tokens_lie_on_their_sixteen_pixel_cells(
    networks: Path, corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    case = Case("timm:vit_tiny_patch16_224", ("norm_pre", "blocks.0"))
    before, block = (entry.spec for entry in indexed(case, networks, corpus, tmp_path / "a").manifest.layers)
    assert before.grid == block.grid == (14, 14) and before.prefix_tokens == block.prefix_tokens == 1
    assert before.receptive_field.size == before.receptive_field.stride == Size(16, 16)
    assert before.receptive_field.box_at(Location(3, 13)) == (48, 208, 64, 224)
