"""The command that says what an atlas of any size would cost, before there is a corpus."""

from typing import Annotated

import typer

from unitscope.commands.app import app, tell
from unitscope.commands.options import FormatOption
from unitscope_schemas.errors import UsageError


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
