"""Two atlases of one corpus compared: which unit of the other each unit is, how surely, and what both rank first."""

from collections.abc import Callable, Sequence
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


class Likeness(NamedTuple):
    """A stored table of how alike two layers' units are, unit × unit."""

    image_count: int
    """Count of the images that the units are compared over."""
    exemplar_count: int
    """Count of the first images of a unit that are exemplars, at most."""
    correlation: Matrix
    overlap: Matrix
    """Exemplars shared over the mean of both units' (Dice 1945)."""


def compare(a: SealedAtlas, b: SealedAtlas, run: Run, layers: Layers = (None, None)) -> Comparison:
    """Compare two atlases, or two layers of one, over the images that both have by their bytes; stored in the first.

    What was compared before is read, not computed again. Raises UsageError where no image or no layer is shared.
    """
    stored = stored_comparison(a, b, layers)
    if stored is not None:
        return stored
    pairs = layer_pairs(a, b, layers)
    likenesses = [_likeness(a.store, table) for table in find_coactivation(a, b, pairs, run)]
    rows = {pair: _matches(pair, likeness) for pair, likeness in zip(pairs, likenesses, strict=True)}
    path = _path(a, b, pairs)
    comparison = Comparison(
        id=PurePosixPath(path).stem,
        a=_side(a),
        b=_side(b),
        shared_images=likenesses[0].image_count,
        top_images=likenesses[0].exemplar_count,
        layers=[_summary(pair, rows[pair], b.layer(pair.b).spec.units) for pair in pairs],
        rows=[row for pair in pairs for row in rows[pair]],
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


def _likeness(store: Store, path: str) -> Likeness:
    """Read a stored table."""
    held = open_coactivation(store, path)
    assert held is not None, "it was written just now"
    with held as file:
        table: pa.Table = pq.read_table(file, partitioning=None)
    correlation, jaccard = (
        np.concatenate([chunk.flatten().to_numpy() for chunk in table[name].chunks])
        .reshape(table.num_rows, -1)
        .astype(np.float64)
        for name in ("correlation", "jaccard")
    )
    return Likeness(
        image_count=int(table.schema.metadata[b"image_count"]),
        exemplar_count=int(table.schema.metadata[b"top_images"]),
        correlation=correlation,
        overlap=2 * jaccard / (1 + jaccard),
    )


def _matches(pair: LayerPair, likeness: Likeness) -> list[MatchRow]:
    """Return one row per unit of the first layer; of equal correlations the lower channel is the match."""
    correlation, overlap = likeness.correlation, likeness.overlap
    known = np.where(np.isnan(correlation), -np.inf, correlation)
    order = np.argsort(-known, axis=1, kind="stable")[:, :2]
    best_of_b = known.argmax(axis=0)
    same_size = correlation.shape[0] == correlation.shape[1]
    rows = []
    for unit, ranked in enumerate(order.tolist()):
        match, runner_up = ([*(other if known[unit, other] > -np.inf else None for other in ranked), None])[:2]
        first, second = _at(correlation, unit, match), _at(correlation, unit, runner_up)
        rows.append(
            MatchRow(
                layer=pair.a,
                channel=unit,
                layer_b=pair.b,
                match=match,
                correlation=first,
                overlap=_at(overlap, unit, match),
                runner_up=runner_up,
                runner_up_correlation=second,
                margin=None if first is None or second is None else first - second,
                mutual=match is not None and bool(best_of_b[match] == unit),
                same_correlation=_at(correlation, unit, unit if same_size else None),
                same_overlap=_at(overlap, unit, unit if same_size else None),
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
