"""Questions as people type them, in options and in URLs, to checked queries."""

from collections.abc import Sequence

from pydantic import ValidationError

from unitscope_schemas.answers.patches import PatchQuery
from unitscope_schemas.errors import UsageError


def patch_query(
    limit: int = 9,
    quantile: str | None = None,
    label: str | None = None,
    order: str = "desc",
    seed: int = 0,
    duplicates: str = "collapse",
    cursor: str | None = None,
    where: Sequence[str] = (),
) -> PatchQuery:
    """A query for a unit's patches; raises UsageError that names the valid values."""
    if duplicates not in ("collapse", "expand"):
        raise UsageError(f"duplicates is {duplicates!r}; use collapse or expand")
    try:
        return PatchQuery(
            limit=limit,
            quantile=None if quantile is None else quantile_band(quantile),
            label=label,
            where=tuple(where),
            order=order,
            seed=seed,
            expand_duplicates=duplicates == "expand",
            cursor=cursor,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}") from None


def quantile_band(text: str) -> tuple[float, float]:
    """Read `a..b` with 0 <= a <= b <= 1."""
    low, dots, high = text.partition("..")
    try:
        if not dots:
            raise ValueError
        band = float(low), float(high)
    except ValueError:
        raise UsageError(f"quantile {text!r} is not a band a..b, for example 0.4..0.6") from None
    if not 0 <= band[0] <= band[1] <= 1:
        raise UsageError(f"quantile {text!r} is not a band a..b with 0 <= a <= b <= 1")
    return band
