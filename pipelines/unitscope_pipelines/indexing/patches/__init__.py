"""Vectors of patches and the index that finds the nearest."""
