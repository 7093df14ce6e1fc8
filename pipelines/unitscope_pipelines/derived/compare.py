"""Two atlases of one corpus compared: which unit of the other each unit is, how surely, and what both rank first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.derived.coactivation import LayerPair, Run, SealedAtlas, find_coactivation, open_coactivation
from unitscope_pipelines.storage.parts import read_model, write_model
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout
from unitscope_schemas.answers.relations import ComparedAtlas, Comparison, LayerMatch, MatchRow
from unitscope_schemas.errors import AtlasError, UsageError, listing

Matrix = NDArray[np.float64]
Layers = tuple[str | None, str | None]
"""A layer of each atlas; only the first: the same name in both; none: every layer name that both have."""


class Matched(NamedTuple):
    """The units of a layer, matched with those of another."""

    image_count: int
    """Count of the images that the units are compared over."""
    exemplar_count: int
    """Count of the first images of a unit that are exemplars, at most."""
    rows: list[MatchRow]


def compare(a: SealedAtlas, b: SealedAtlas, run: Run, layers: Layers = (None, None)) -> Comparison:
    """Compare two atlases, or two layers of one, over the images that both have by their bytes; stored in the first.

    What was compared before is read, not computed again. Raises UsageError where no image or no layer is shared.
    """
    stored = stored_comparison(a, b, layers)
    if stored is not None:
        return stored
    pairs = layer_pairs(a, b, layers)
    tables_of = zip(pairs, find_coactivation(a, b, pairs, run), strict=True)
    matched = {pair: _matched(pair, b.layer(pair.b).spec.units, a.store, table) for pair, table in tables_of}
    path = _path(a, b, pairs)
    comparison = Comparison(
        id=PurePosixPath(path).stem,
        a=_side(a),
        b=_side(b),
        shared_images=matched[pairs[0]].image_count,
        top_images=matched[pairs[0]].exemplar_count,
        layers=[_summary(pair, matched[pair].rows, b.layer(pair.b).spec.units) for pair in pairs],
        rows=[row for pair in pairs for row in matched[pair].rows],
    )
    write_model(a.store, path, comparison)
    return comparison


def stored_comparison(a: SealedAtlas, b: SealedAtlas, layers: Layers = (None, None)) -> Comparison | None:
    """Read what `compare` has stored for this question, if it has; raises UsageError where no layer is shared."""
    path = _path(a, b, layer_pairs(a, b, layers))
    return None if (data := a.store.read(path)) is None else read_comparison(data, path)


def read_comparison(data: bytes, path: str) -> Comparison:
    """Read a stored comparison; raises AtlasError where it is damaged."""
    try:
        return read_model(data, Comparison)
    except ValueError as error:
        raise AtlasError(f"comparison {path} is damaged: {error}; delete it, and compare again") from None


def layer_pairs(a: SealedAtlas, b: SealedAtlas, layers: Layers) -> list[LayerPair]:
    """Return the layers that are compared; raises UsageError or NotFoundError that names those there are."""
    layer_a, layer_b = layers
    if layer_a is None and layer_b is not None:
        raise UsageError(f"layer {layer_b!r} of the second atlas is compared with one of the first: give --layer too")
    if layer_a is not None:
        pair = LayerPair(a.layer(layer_a).spec.name, b.layer(layer_b or layer_a).spec.name)
        return [pair]
    of_b = [entry.spec.name for entry in b.manifest.layers]
    of_a = [entry.spec.name for entry in a.manifest.layers]
    pairs = [LayerPair(name, name) for name in of_a if name in of_b]
    if not pairs:
        raise UsageError(
            f"no layer has the same name in both atlases; give --layer, one of {listing(of_a, most=40)}, and "
            f"--layer-b, one of {listing(of_b, most=40)}"
        )
    return pairs


def _path(a: SealedAtlas, b: SealedAtlas, pairs: Sequence[LayerPair]) -> str:
    names = [b.manifest.version, *(name for pair in pairs for name in (pair.a, pair.b))]
    return layout.comparison(a.manifest.version, *names)


def _matched(pair: LayerPair, units_b: int, store: Store, path: str) -> Matched:
    """Match the units of a pair's layers by their stored table, which is read once, a block of units at a time."""
    held = open_coactivation(store, path)
    assert held is not None, "it was written just now"
    rows: list[MatchRow] = []
    with held as file, pq.ParquetFile(file) as table:
        counts = table.schema_arrow.metadata
        likeness, closest = np.full(units_b, -np.inf), np.zeros(units_b, np.int64)  # of each unit of the second layer
        for group in range(table.num_row_groups):
            block = table.read_row_group(group)
            correlation, jaccard = (_square(block[name]) for name in ("correlation", "jaccard"))
            known = _known(correlation)
            closer = known.max(axis=0) > likeness
            closest[closer] = len(rows) + known.argmax(axis=0)[closer]
            np.maximum(likeness, known.max(axis=0), out=likeness)
            rows += _rows(pair, len(rows), table.metadata.num_rows, correlation, 2 * jaccard / (1 + jaccard))
    mutual = [replace(row, mutual=row.match is not None and bool(closest[row.match] == row.channel)) for row in rows]
    return Matched(int(counts[b"image_count"]), int(counts[b"top_images"]), mutual)


def _square(lists: pa.ChunkedArray) -> Matrix:
    """Return lists of one length as the rows of a matrix."""
    values: Matrix = lists.combine_chunks().flatten().to_numpy().astype(np.float64)
    return values.reshape(len(lists), -1)


def _known(correlation: Matrix) -> Matrix:
    """Return correlations with those that cannot be told below all others."""
    return np.where(np.isnan(correlation), -np.inf, correlation)


def _rows(pair: LayerPair, first: int, unit_count: int, correlation: Matrix, overlap: Matrix) -> list[MatchRow]:
    """Return one row per unit from the `first` on; of equal correlations the lower channel is the match.

    `overlap`: exemplars shared over the mean of both units' (Dice 1945). What is mutual only all units tell.
    """
    known = _known(correlation)
    order = np.argsort(-known, axis=1, kind="stable")[:, :2]
    same_size = unit_count == correlation.shape[1]
    rows = []
    for place, ranked in enumerate(order.tolist()):
        match, runner_up = ([*(other if known[place, other] > -np.inf else None for other in ranked), None])[:2]
        nearest, second = _at(correlation, place, match), _at(correlation, place, runner_up)
        rows.append(
            MatchRow(
                layer=pair.a,
                channel=first + place,
                layer_b=pair.b,
                match=match,
                correlation=nearest,
                overlap=_at(overlap, place, match),
                runner_up=runner_up,
                runner_up_correlation=second,
                margin=None if nearest is None or second is None else nearest - second,
                mutual=False,
                same_correlation=_at(correlation, place, first + place if same_size else None),
                same_overlap=_at(overlap, place, first + place if same_size else None),
            )
        )
    return rows


def _summary(pair: LayerPair, rows: Sequence[MatchRow], units_b: int) -> LayerMatch:
    matched = [row for row in rows if row.match is not None]
    same_size = len(rows) == units_b
    return LayerMatch(
        layer=pair.a,
        layer_b=pair.b,
        units=len(rows),
        units_b=units_b,
        compared=len(matched),
        correlation=_middle([row.correlation for row in matched], np.median),
        overlap=_middle([row.overlap for row in matched], np.mean),
        margin=_middle([row.margin for row in matched], np.median),
        mutual_share=_middle([row.mutual for row in matched], np.mean),
        same_share=_middle([row.match == row.channel for row in matched], np.mean) if same_size else None,
        same_correlation=_middle([row.same_correlation for row in matched], np.median),
        same_overlap=_middle([row.same_overlap for row in matched], np.mean),
    )


def _middle(values: Sequence[float | None], measure: Callable[[list[float]], np.floating]) -> float | None:
    """Return the mean or median of the values that are known, None if none is."""
    known = [value for value in values if value is not None]
    return float(measure(known)) if known else None


def _at(matrix: Matrix, unit: int, other: int | None) -> float | None:
    """Return a cell of a matrix, None where it is NaN or there is no other unit."""
    value = None if other is None else float(matrix[unit, other])
    return None if value is None or np.isnan(value) else value


def _side(atlas: SealedAtlas) -> ComparedAtlas:
    manifest = atlas.manifest
    return ComparedAtlas(
        name=atlas.store.name,
        version=manifest.version,
        model=manifest.model.spec.rpartition("/")[2],  # no path of this machine: servers show it
        weights_digest=manifest.model.weights_digest,
        images=manifest.corpus.image_count,
    )
