"""The commands that make an atlas, and say what one of any size would cost: layers, index, plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitscope.commands.app import app, tell
from unitscope.commands.options import (
    FormatOption,
    JsonFlag,
    LatentsOption,
    LayersOption,
    ProgressOption,
    TrustFlag,
    split_globs,
)
from unitscope_schemas.errors import UsageError

if TYPE_CHECKING:
    from unitscope_pipelines.indexing.config import IndexConfig
    from unitscope_schemas.manifest import Manifest


@app.command()
def layers(
    model: Annotated[
        str, typer.Argument(help="SCHEME:NAME, for example torchvision:resnet18 or timm:vit_tiny_patch16_224")
    ],
    weights: Annotated[str, typer.Option(help="default, random:SEED or a state-dict file")] = "default",
    layer_globs: LayersOption = None,
    latents: LatentsOption = None,
    trust_code: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """List the layers of a model: name, kind, units, grid, stride, receptive field."""
    from unitscope.commands.output import show_rows
    from unitscope_pipelines.vision.models.default_layers import measure_default
    from unitscope_pipelines.vision.models.models import choose_layers, load_model
    from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
    from unitscope_schemas.answers.served import LayerRow
    from unitscope_schemas.units import unmeasured_words

    loaded = load_model(model, weights, tuple(latents or ()), trust_code)
    names, notes = choose_layers(loaded, split_globs(layer_globs)), tuple[str, ...]()
    if layer_globs:
        specs = measure_layers(loaded.module, names, loaded.input_shape)
    else:
        specs, notes = measure_default(loaded, names)
    rows, notes = [LayerRow.of(spec) for spec in specs], (*loaded.entry.notes, *notes, *unmeasured_words(specs))
    show_rows(rows, LayerRow, "json" if as_json else "table", {"model": model, "rows": rows, "notes": notes})
    for note in notes:
        tell(note)


@app.command()
def index(
    corpus: Annotated[str, typer.Argument(help="folder of pictures, tar shards, Parquet files, or a list; or s3://…")],
    atlas: Annotated[str, typer.Option(help="directory to write, or s3://…")],
    model: Annotated[str | None, typer.Option(help="SCHEME:NAME  [default: efficientnet-lite:0]")] = None,
    weights: Annotated[str | None, typer.Option(help="default, random:SEED or a state-dict file")] = None,
    layer_globs: LayersOption = None,
    latents: LatentsOption = None,
    trust_code: TrustFlag = False,
    embed: Annotated[str | None, typer.Option(help="layer for nearest patches  [default: the last]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images in a forward  [default: 32; GPU: measured]")] = None,
    patch_memory_gb: Annotated[
        float | None, typer.Option(help="GB that the nearest-patch index may take when served  [default: 3]")
    ] = None,
    allow_batch_dependence: Annotated[
        bool, typer.Option("--allow-batch-dependence", help="index values that hang on the batch's others or on chance")
    ] = False,
    precision: Annotated[str | None, typer.Option(help="fp32 (exact), tf32, bf16 or fp16 (rounded, for GPUs)")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
    workers: Annotated[int | None, typer.Option(help="scanning processes  [default: one per GPU or core]")] = None,
    address: Annotated[str | None, typer.Option(help="address of a running Ray cluster")] = None,
    shard_size: Annotated[int | None, typer.Option(help="files committed at once  [default: at most 1024]")] = None,
    segment_images: Annotated[
        int | None, typer.Option(help="images ranked together, which bounds memory  [default: at most 4000000]")
    ] = None,
    field_exemplars: Annotated[
        int | None,
        typer.Option(help="exemplars that a unit's effective box is measured on, 0: one box a layer  [default: to 4]"),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="ranks stored of each unit: all, or top:K  [default: all, or as the atlas has it]"),
    ] = None,
    max_errors: Annotated[int | None, typer.Option(help="exit with 3 if more files are skipped")] = None,
    limit: Annotated[int | None, typer.Option(help="only the first so many files")] = None,
    add: Annotated[bool, typer.Option("--add", help="take CORPUS in beside those that the atlas has")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="make the atlas hold CORPUS alone, whatever leaves it")
    ] = False,
    path_column: Annotated[
        str | None, typer.Option(help="column of a list with the paths  [default: path, file_name, … as it is]")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="column of a list or Parquet with the labels  [default: label, class, …]")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Parquet column with the pictures  [default: found by content]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with an [index] table")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="figures for Prometheus at this port  [default: none]")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="address the figures are given at")] = "127.0.0.1",
    plan: Annotated[
        bool, typer.Option("--plan", help="print rows, bytes, memory and time to expect; do no work")
    ] = False,
    progress: ProgressOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Index a corpus: every unit's peak on every picture. Run it again to resume, or when pictures came or went.

    A run by which more than one image in ten (a hundred at most, one at least) would leave the atlas, or one of its
    corpora, is refused: --add takes a further corpus in, --replace puts CORPUS in place of all.
    """
    from unitscope.commands.output import show_facts
    from unitscope.commands.progress import shown
    from unitscope.run_metrics import published
    from unitscope_pipelines.corpora.listing import check_there, list_corpus
    from unitscope_pipelines.indexing.config import IndexConfig, load_config

    flags = {
        "corpus": corpus,
        "atlas": atlas,
        "model": model,
        "weights": weights,
        "layers": split_globs(layer_globs) or None,
        "latents": latents,
        "trust_code": trust_code or None,
        "embed": embed,
        "batch_size": batch_size,
        "patch_memory_gb": patch_memory_gb,
        "allow_batch_dependence": allow_batch_dependence or None,
        "precision": precision,
        "device": device,
        "workers": workers,
        "address": address,
        "shard_size": shard_size,
        "segment_images": segment_images,
        "field_exemplars": field_exemplars,
        "keep": keep,
        "max_errors": max_errors,
        "limit": limit,
        "add": add or None,
        "replace": replace or None,
        "path_column": path_column,
        "label_column": label_column,
        "image_column": image_column,
    }
    settings = load_config(IndexConfig, "index", flags, config)
    check_there(settings.corpus)  # before PyTorch is loaded, which takes seconds
    from unitscope_pipelines.indexing.forecast import forecast
    from unitscope_pipelines.indexing.index import expected
    from unitscope_pipelines.indexing.index import index as run_index
    from unitscope_pipelines.indexing.plan import make_plan

    with shown(progress) as shown_report, published(shown_report, metrics_host, metrics_port) as report:
        if plan:
            corpus_files = list_corpus(settings.corpus, settings.limit, settings.columns)
            planned = forecast(expected(make_plan(settings, corpus_files, report))).facts()
        else:
            manifest = run_index(settings, report)
    if plan:
        show_facts(planned, as_json)
        return
    _show_run(settings, manifest, as_json)
    if settings.max_errors is not None and manifest.corpus.skipped_count > settings.max_errors:
        raise typer.Exit(3)


def _show_run(settings: "IndexConfig", manifest: "Manifest", as_json: bool) -> None:
    """Show what a run has sealed, and say what it left out."""
    from unitscope.commands.output import show_facts

    counts = manifest.corpus
    facts = {
        "atlas": settings.atlas,
        "version": manifest.version,
        "images": counts.image_count,
        "files": counts.file_count,
        "duplicates": counts.file_count - counts.image_count,
        "repeated_rows": counts.repeated_count,
        "conflicts": counts.conflict_count,
        "skipped": counts.skipped_count,
        "ignored": counts.ignored_count,
        "forwards": manifest.forward_count,
        "layers": len(manifest.layers),
        "units": sum(entry.spec.units for entry in manifest.layers),
        "keep": "all" if manifest.keep is None else f"top:{manifest.keep}",
        **({"corpora": len(counts.roots)} if len(counts.roots) > 1 else {}),
        **({"left": manifest.left if as_json else manifest.left.count} if manifest.left else {}),
    }
    notes = [*counts.notes, *manifest.layer_notes, *manifest.remarks]
    show_facts(facts | ({"others": counts.others, "notes": notes} if as_json else {}), as_json)
    if manifest.left:
        tell(
            f"{manifest.left.count} images of version {manifest.left.version} left, first "
            f"{', '.join(manifest.left.first)}; unitscope revert {settings.atlas} {manifest.left.version} goes back"
        )
    if counts.others_text:
        tell(f"{counts.others_text} were not read: they are no pictures by their names")
    for note in notes:
        tell(note)
    if counts.repeated_count:
        tell(f"{counts.repeated_count} rows name a picture that another row names; the labels of all are kept")
    if counts.conflict_count:
        tell(
            f"{counts.conflict_count} images have several labels by different files or rows, which all count: "
            f"unitscope images {settings.atlas} --conflicts"
        )
    if manifest.removed:
        tell(f"{manifest.removed.table.rows} removed images stay out; unitscope remove --restore brings them back")
    if counts.skipped_count:
        what = "file is" if counts.skipped_count == 1 else "files are"
        tell(f"{counts.skipped_count} {what} no usable picture; the reasons: skipped table, {manifest.skipped.path}")


def _count(text: str | int) -> int:
    """Read a count as people write it: 4000000, 4_000_000, 4,000,000 or 4e6."""
    try:
        return int(float(str(text).replace(",", "").replace("_", "")))
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no count; write 4000000 or 4e6") from None


@app.command()
def plan(
    images: Annotated[int, typer.Option(parser=_count, metavar="COUNT", help="pictures, for example 1e9")],
    units: Annotated[int, typer.Option(parser=_count, metavar="COUNT", help="units of all layers together")] = 1_808,
    layers: Annotated[int, typer.Option(help="layers that they are of")] = 3,
    nodes: Annotated[int, typer.Option(help="machines of the cluster")] = 1,
    workers: Annotated[int, typer.Option(help="processes on each: one per GPU or core")] = 8,
    images_per_s: Annotated[float, typer.Option(help="pictures a worker scans in a second; index --plan tells")] = 60.0,
    regions: Annotated[int, typer.Option(help="vectors embedded of each picture")] = 14,
    shard_size: Annotated[int, typer.Option(help="pictures that a worker commits at once")] = 1_024,
    segment_images: Annotated[
        int, typer.Option(parser=_count, metavar="COUNT", help="pictures ranked together")
    ] = 4_000_000,
    price: Annotated[float | None, typer.Option(help="price of a machine for an hour")] = None,
    style: FormatOption = "table",
) -> None:
    """Tell files, bytes, requests, memory and hours of a run of any size, stage by stage; nothing is read or written.

    The laws and where their constants come from are in docs/plan.md. For a corpus that is there, index --plan measures.
    """
    from unitscope.commands.output import show_rows
    from unitscope_pipelines.indexing.laws import Scale, StageCost, costs, remarks

    scale = Scale(
        images=images,
        units=units,
        layers=layers,
        nodes=nodes,
        workers=workers,
        images_per_s=images_per_s,
        regions=regions,
        shard_size=shard_size,
        segment_images=segment_images,
        price=price,
    )
    stages = costs(scale)
    show_rows(stages, StageCost, style, {"scale": scale, "stages": stages, "remarks": remarks(scale, stages)})
    for remark in remarks(scale, stages):
        tell(remark)
