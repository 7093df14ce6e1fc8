"""The command line: arguments -> config -> one call. stdout is data, stderr is talk."""

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from unitscope.commands.app import app, tell
from unitscope.commands.options import (
    AtlasArgument,
    JsonFlag,
    LatentsOption,
    LayersOption,
    ProgressOption,
    TrustFlag,
    split_globs,
)


def main() -> NoReturn:
    """Run the command line; exits 0 done, 1 failed, 2 usage, 3 too many skipped, 4 faults found, 5 not found,
    6 busy or other format, 130 or 143 on signals."""
    from unitscope.commands import demo, export, optimise, project, questions, relations, upkeep  # noqa: F401  (each adds its commands)

    signal.signal(signal.SIGTERM, _stop)
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as stop:
        code = stop.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except Exception as error:  # noqa: BLE001  (the outermost border: every failure becomes words and an exit code)
        code = _failure_code(error)
    if code == 130:
        resume = shlex.join(["unitscope", *sys.argv[1:]])
        shards, stored = "finished shards", "stored pictures"
        whole = {"index": shards, "demo": shards, "optimise": stored, "project": stored}
        what = whole.get(next(iter(sys.argv[1:]), ""))
        kept = f"; {what} are kept. Resume with: {resume}" if what else ""
        tell(f"interrupted{kept}")
    sys.stdout.flush()
    sys.exit(code or 0)


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
    """Table of layers: name, kind, units, grid, stride, receptive field."""
    from unitscope.commands.output import show_rows
    from unitscope_pipelines.vision.models.models import choose_layers, load_model
    from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
    from unitscope_schemas.answers.served import LayerRow

    loaded = load_model(model, weights, tuple(latents or ()), trust_code)
    specs = measure_layers(loaded.module, choose_layers(loaded, split_globs(layer_globs)), loaded.input_shape)
    rows = [
        LayerRow(
            name=spec.name,
            kind=spec.kind,
            units=spec.units,
            grid=spec.grid,
            stride=spec.receptive_field.stride,
            receptive_field=spec.receptive_field.size,
            effective_field=spec.receptive_field.effective,
        )
        for spec in specs
    ]
    show_rows(rows, LayerRow, "json" if as_json else "table", {"model": model, "rows": rows})


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
    batch_size: Annotated[int | None, typer.Option(help="images in one forward  [default: 32]")] = None,
    patch_memory_gb: Annotated[
        float | None, typer.Option(help="GB that the nearest-patch index may take when served  [default: 3]")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 (exact) or bf16 (rounded, for GPUs)")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
    workers: Annotated[int | None, typer.Option(help="scanning processes  [default: one per GPU or core]")] = None,
    address: Annotated[str | None, typer.Option(help="address of a running Ray cluster")] = None,
    shard_size: Annotated[int | None, typer.Option(help="files committed at once  [default: at most 1024]")] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="ranks stored of each unit: all, or top:K  [default: all, or as the atlas has it]"),
    ] = None,
    max_errors: Annotated[int | None, typer.Option(help="exit with 3 if more files are skipped")] = None,
    limit: Annotated[int | None, typer.Option(help="only the first so many files")] = None,
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
    """Index a corpus: every unit's peak on every picture. Run it again to resume or to add pictures."""
    flags: dict[str, Any] = dict(locals())
    for other in ("layer_globs", "config", "metrics_port", "metrics_host", "plan", "progress", "as_json"):
        del flags[other]
    from unitscope.commands.output import show_facts
    from unitscope.commands.progress import shown
    from unitscope.run_metrics import published
    from unitscope_pipelines.corpora.listing import list_corpus
    from unitscope_pipelines.indexing.config import IndexConfig, load_config
    from unitscope_pipelines.indexing.forecast import forecast
    from unitscope_pipelines.indexing.index import expected
    from unitscope_pipelines.indexing.index import index as run_index
    from unitscope_pipelines.indexing.plan import make_plan

    flags["layers"] = split_globs(layer_globs) or None
    flags["trust_code"] = trust_code or None
    settings = load_config(IndexConfig, "index", flags, config)
    with shown(progress) as shown_report, published(shown_report, metrics_host, metrics_port) as report:
        if plan:
            corpus_files = list_corpus(settings.corpus, settings.limit)
            planned = forecast(expected(make_plan(settings, corpus_files, report)))
        else:
            manifest = run_index(settings, report)
    if plan:
        show_facts(planned, as_json)
        return
    found = manifest.corpus
    facts = {
        "atlas": settings.atlas,
        "version": manifest.version,
        "images": found.image_count,
        "files": found.file_count,
        "skipped": found.skipped_count,
        "forwards": manifest.forward_count,
        "layers": len(manifest.layers),
        "units": sum(entry.spec.units for entry in manifest.layers),
        "keep": "all" if manifest.keep is None else f"top:{manifest.keep}",
    }
    show_facts(facts, as_json)
    if manifest.removed:
        tell(f"{manifest.removed.table.rows} removed images stay out; unitscope remove --restore brings them back")
    if found.skipped_count:
        tell(f"{found.skipped_count} files are no usable picture; the reasons: skipped table, {manifest.skipped.path}")
    if settings.max_errors is not None and found.skipped_count > settings.max_errors:
        raise typer.Exit(3)


@app.command()
def serve(
    atlases: Annotated[list[str], typer.Argument(help="atlas directories, or s3://…")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on; 0 takes a free one")] = 8000,
    key_file: Annotated[Path | None, typer.Option(help="lines of: name scope[,scope] sha256-of-the-key")] = None,
    anonymous_read: Annotated[bool, typer.Option("--anonymous-read", help="let anyone read")] = False,
    workers: Annotated[int, typer.Option(min=1, help="processes that answer; each opens all atlases")] = 1,
    trust_code: TrustFlag = False,
    cache: Annotated[
        Path | None, typer.Option(envvar="UNITSCOPE_CACHE", help="folder for parts of atlases at s3://")
    ] = None,
    cache_gb: Annotated[
        float | None, typer.Option(envvar="UNITSCOPE_CACHE_GB", help="most that it holds  [default: 10]")
    ] = None,
) -> None:
    """Serve atlases as an API and as pages. Listens on this machine only, unless keys say who may ask."""
    from unitscope_services.server.settings import Settings
    from unitscope_services.web.serving import serve_atlases

    settings = Settings(
        atlases=tuple(atlases),
        key_file=key_file,
        anonymous_read=anonymous_read,
        trust_code=trust_code,
        cache=cache,
        cache_gb=cache_gb,
    )
    serve_atlases(settings, host, port, process_count=workers)


@app.command()
def verify(
    atlas: AtlasArgument,
    sample: Annotated[int, typer.Option(help="images whose forward is run again")] = 8,
    seed: Annotated[int, typer.Option(help="of the random choice")] = 0,
    corpus: Annotated[str | None, typer.Option(help="folder or s3://… below which the pictures are now")] = None,
    trust_code: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Check every part against its digest and a random sample of rows against a new forward; exit 4 on faults."""
    from unitscope.commands.output import show_verdict
    from unitscope_pipelines.indexing.verify import verify as run_verify

    verdict = run_verify(atlas, sample, seed, corpus, trust_code)
    show_verdict(verdict, as_json)
    if verdict.faults:
        raise typer.Exit(4)


def _failure_code(error: Exception) -> int:
    """Say what went wrong and give the exit code; what is no known error shows its stack."""
    from unitscope_schemas.errors import UnitscopeError

    if isinstance(error, UnitscopeError):
        tell(f"error: {error}")
        return error.exit_code
    show = getattr(error, "show", None)
    if show is not None:
        show(file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    sys.excepthook(type(error), error, error.__traceback__)
    return 1


def _stop(_number: int, _frame: object) -> None:
    raise SystemExit(143)
