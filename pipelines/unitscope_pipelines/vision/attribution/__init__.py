"""Attribution from a unit back to pixels: projections and weights."""
