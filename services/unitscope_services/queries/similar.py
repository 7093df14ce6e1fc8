"""Similar units: by the images on which they peak, by the exemplars they share, by the weights they read with."""

from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.derived.coactivation import open_coactivation
from unitscope_schemas import layout, tables
from unitscope_schemas.answers.relations import SimilarPage, SimilarRow
from unitscope_schemas.errors import AtlasError, NotFoundError, UsageError
from unitscope_schemas.manifest import BLOCK_UNITS
from unitscope_schemas.questions import Likeness, SimilarQuestion
from unitscope_schemas.ranks import are_exemplars, jaccard
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.ranks.bounded import bounded_note, check_whole
from unitscope_services.queries.session import Session

_DIGITS = 12
"""Number of digits of a cosine that are not rounding: equal weights give 1."""

Likenesses = NDArray[np.float64]
"""Similarities of one unit with every unit of a layer; NaN where there is none."""


def similar(session: Session, unit: UnitId, question: SimilarQuestion) -> SimilarPage:
    """Return the units of a layer (None: its own) that are most like a unit, without itself; ties by channel.

    Raises NotFoundError where co-activation has not been computed, UsageError where a layer has no weights.
    """
    atlas, by = session.atlas, question.by
    atlas.unit(unit)
    other = atlas.layer(question.among or unit.layer).spec.name
    likenesses, note = _LIKENESS[by](session, unit, other)
    if other == unit.layer:
        likenesses[unit.channel] = np.nan
    known = np.flatnonzero(~np.isnan(likenesses))
    order = known[np.argsort(-likenesses[known], kind="stable")][: question.k]
    rows = [
        SimilarRow(
            rank=rank,
            layer=other,
            channel=statistics.channel,
            similarity=float(likenesses[statistics.channel]),
            status=statistics.status,
            top_label=statistics.top_label,
        )
        for rank, statistics in enumerate(atlas.unit_statistics(other, order.tolist()))
    ]
    return SimilarPage(unit=str(unit), by=by, layer=other, note=note, rows=rows)


def is_computed(atlas: Atlas, layer: str, other: str) -> bool:
    """Return whether the co-activation of two layers' units, or of one's, is stored for this version."""
    return atlas.store.stamp(_path(atlas, layer, other)) is not None


def _path(atlas: Atlas, layer: str, other: str) -> str:
    return layout.coactivation(atlas.manifest.compared_as, layer, atlas.manifest.compared_as, other)


def _by_coactivation(session: Session, unit: UnitId, other: str) -> tuple[Likenesses, str]:
    atlas = session.atlas
    check_whole(atlas.manifest, "co-activation")
    path = _path(atlas, unit.layer, other)
    held = open_coactivation(atlas.store, path)
    if held is None:
        raise NotFoundError(
            f"co-activation of layer {unit.layer} with {other} is not computed for this version of the atlas: run "
            f"unitscope similar {atlas.name} {unit}{'' if other == unit.layer else f' --among {other}'}, or ask by "
            "exemplars"
        )
    try:
        with held as file, pq.ParquetFile(file) as read:
            row = read.read_row_group(unit.channel // BLOCK_UNITS, columns=["correlation"])
            images = int(read.schema_arrow.metadata[b"image_count"])
    except (OSError, KeyError, ValueError) as error:
        raise AtlasError(
            f"part {path} of atlas {atlas.name} is damaged: {error}; delete it to compute it again"
        ) from None
    values = row["correlation"][unit.channel % BLOCK_UNITS].values.to_numpy().astype(np.float64)
    return values, f"rank correlation of peaks over {images} images"


def _by_exemplars(session: Session, unit: UnitId, other: str) -> tuple[Likenesses, str]:
    atlas = session.atlas
    most = tables.exemplar_count(atlas.catalogue.count)
    own_units, own_images = _exemplars(atlas, unit.layer, most)
    unit_images = own_images[own_units == unit.channel]
    units, images = (own_units, own_images) if other == unit.layer else _exemplars(atlas, other, most)
    count = atlas.layer(other).spec.units
    sizes = np.bincount(units, minlength=count)
    both = np.bincount(units[np.isin(images, unit_images)], minlength=count)
    shares = jaccard(both, sizes, len(unit_images))
    shares[(sizes == 0) | (len(unit_images) == 0)] = np.nan
    return shares, f"share of both units' first {most} images that both have"


def _exemplars(atlas: Atlas, layer: str, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return units and images of the first `most` present images of every unit, without those tied with the next."""
    left = min(tables.FIRST_RANKS, most + 1 + atlas.manifest.stale_count)
    if atlas.manifest.kept is not None and atlas.manifest.kept < left:
        raise UsageError(
            f"shared exemplars take the first {left} ranks of each unit, but {bounded_note(atlas.manifest)}; ask by "
            f"weights, or index with --keep top:{left} or more"
        )
    ranks = atlas.first_ranks(layer, left)
    units, images, activations = (np.asarray(ranks[name]) for name in ("unit", "image", "activation"))
    if atlas.catalogue.present is not None:
        shown = atlas.catalogue.present.take(images)
        units, images, activations = units[shown], images[shown], activations[shown]
    chosen = are_exemplars(units, activations, most)
    return units[chosen].astype(np.int64), images[chosen].astype(np.int64)


def _by_weights(session: Session, unit: UnitId, other: str) -> tuple[Likenesses, str]:
    weights = session.encoder.incoming_weights(unit.layer).astype(np.float64)
    others = session.encoder.incoming_weights(other).astype(np.float64)
    if weights.shape[1] != others.shape[1]:
        raise UsageError(
            f"a unit of {unit.layer} reads {weights.shape[1]} weights and one of {other} {others.shape[1]}: only units "
            "that read as many can be compared by weights"
        )
    lengths = np.sqrt((weights[unit.channel] @ weights[unit.channel]) * np.einsum("ij,ij->i", others, others))
    lengths[lengths == 0] = np.nan
    cosines = others @ weights[unit.channel] / lengths
    return cosines.round(_DIGITS), "cosine of incoming weights"


_LIKENESS: dict[Likeness, Callable[[Session, UnitId, str], tuple[Likenesses, str]]] = {
    "coactivation": _by_coactivation,
    "exemplars": _by_exemplars,
    "weights": _by_weights,
}
