"""From a unit back to pixels: projections and weights."""
